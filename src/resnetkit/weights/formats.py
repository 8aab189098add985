"""The table of formats: a new one is a module with a `Format`, and a line here."""

from resnetkit.weights.akamaster import AKAMASTER
from resnetkit.weights.caffe import CAFFE
from resnetkit.weights.format import Format, WeightsSource
from resnetkit.weights.keras import KERAS
from resnetkit.weights.native import RESNETKIT
from resnetkit.weights.timm import TIMM
from resnetkit.weights.torchvision import TORCHVISION
from resnetkit.weights.transformers import TRANSFORMERS

__all__ = ["FORMATS", "recognized_format"]

# Tried in this order: formats recognized by their first bytes come before those whose tensors must
# be read first.
FORMATS: dict[str, Format] = {
    entry.name: entry
    for entry in (RESNETKIT, KERAS, CAFFE, TORCHVISION, TIMM, TRANSFORMERS, AKAMASTER)
}


def recognized_format(source: WeightsSource) -> Format | None:
    """Returns the format that a source is in; None for an unknown one."""
    return next((entry for entry in FORMATS.values() if entry.recognizes(source)), None)
