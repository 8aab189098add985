"""torch.hub entry points, one a named network, such as torch.hub.load(REPOSITORY, "resnet56")."""

import sys
from functools import partial
from pathlib import Path

dependencies = ["torch"]

try:
    import resnetkit  # noqa: F401
except ModuleNotFoundError:  # a hub clone that is not installed
    sys.path.insert(0, str(Path(__file__).parent / "src"))

from resnetkit.models.zoo import ARCHITECTURES, create_model  # noqa: E402


def entry_point(name):
    """Returns a function that builds the named network with fresh weights."""
    build = partial(create_model, name)
    build.__doc__ = f"Builds {name}; options are those of resnetkit.create_model."
    return build


globals().update({name: entry_point(name) for name in ARCHITECTURES})
