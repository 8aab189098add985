"""The precision of the forward pass: float32, or bfloat16 where the processor has it."""

from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import Literal

import torch

from resnetkit.runtime.processor import unused_instructions

__all__ = ["ChosenPrecision", "choose_precision", "cpu_capabilities"]


@dataclass(frozen=True)
class ChosenPrecision:
    """The precision of the forward pass.

    Attributes:
        name: float32 or bfloat16.
        reason: why it was chosen, for messages.
        device_type: cpu or cuda.
    """

    name: Literal["float32", "bfloat16"]
    reason: str
    device_type: str

    def autocast(self) -> AbstractContextManager[object]:
        """Returns the context of a forward pass; in float32 it changes nothing."""
        return torch.autocast(
            self.device_type, dtype=torch.bfloat16, enabled=self.name == "bfloat16"
        )


def choose_precision(requested: str, device: torch.device) -> ChosenPrecision:
    """Returns the requested precision; for `auto`, bfloat16 if the device has instructions for it.

    float16 is not offered: on CPUs its matrix products are up to a thousand times slower (pytorch
    193951).
    """
    if requested == "float32":
        return ChosenPrecision("float32", "the recipe asks for it", device.type)
    if requested == "bfloat16":
        return ChosenPrecision("bfloat16", "the recipe asks for it", device.type)
    if device.type == "cuda":
        if torch.cuda.get_device_capability(device) >= (8, 0):
            return ChosenPrecision("bfloat16", "this GPU has bfloat16 matrix units", device.type)
        return ChosenPrecision("float32", "this GPU has no bfloat16 matrix units", device.type)
    capabilities = cpu_capabilities()
    instructions = [name for name in ("amx_bf16", "avx512_bf16") if capabilities.get(name)]
    if instructions:
        return ChosenPrecision("bfloat16", f"this processor has {instructions[0]}", device.type)
    return ChosenPrecision("float32", "this processor has no bfloat16 instructions", device.type)


def cpu_capabilities() -> dict[str, object]:
    """Returns the processor's instruction sets that torch detects, by name.

    Instructions that the environment denies to oneDNN count as absent: torch does not look at the
    environment, and bfloat16 without instructions for it is emulated, a hundred times slower.
    """
    unused = unused_instructions()
    capabilities = torch.cpu.get_capabilities().items()
    return {name: value for name, value in capabilities if not name.startswith(unused)}
