"""The versions and the hardware that a run records."""

import platform
from importlib.metadata import version

import torch

from resnetkit.runtime.process_group import World
from resnetkit.runtime.processor import processor_name
from resnetkit.runtime.resources import usable_memory, usable_processors

__all__ = ["hardware", "versions"]

LIBRARIES = ("resnetkit", "torch", "numpy", "scikit-learn", "safetensors")


def versions() -> dict[str, str]:
    """Returns the versions of Python and of the libraries that can change a result."""
    return {"python": platform.python_version(), **{name: version(name) for name in LIBRARIES}}


def hardware(world: World) -> dict[str, str | int]:
    """Returns the machine, and the resources in use."""
    facts: dict[str, str | int] = {
        "processor": processor_name(),
        "cores": usable_processors(),
        "memory_gib": round(usable_memory() / 2**30),
        "device": str(world.device),
        "threads": torch.get_num_threads(),
        "ranks": world.size,
        "system": platform.platform(),
    }
    if world.device.type == "cuda":
        facts["gpu"] = torch.cuda.get_device_name(world.device)
    return facts
