"""Keeps libraries from sending statistics: OpenVINO and NNCF send some unless told otherwise.

They take a missing file of consent for consent. Every import of them calls this module first.
"""

import sys

__all__ = ["forbid_telemetry"]


def forbid_telemetry() -> None:
    """Selects the stubs that both libraries use where their sender of statistics is missing."""
    sys.modules["openvino_telemetry"] = None  # type: ignore[assignment]  # its import fails
