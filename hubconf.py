"""torch.hub entry points, one a named network, such as torch.hub.load(REPOSITORY, "resnet56")."""

import sys
from functools import partial
from pathlib import Path

dependencies = ["torch"]

try:
    import resnetkit  # noqa: F401
except ModuleNotFoundError:  # a hub clone that is not installed
    sys.path.insert(0, str(Path(__file__).parent / "src"))

from resnetkit.models.zoo import ARCHITECTURES  # noqa: E402


def build(name, pretrained="", variant="", **options):
    """Returns a fresh network, or the trained one of a path or a name of published weights."""
    from resnetkit.errors import UsageError
    from resnetkit.models.zoo import create_model, known_as
    from resnetkit.weights.pretrained import from_pretrained

    if not pretrained:
        return create_model(name, **options)
    if options or isinstance(pretrained, bool):
        raise UsageError(
            "pretrained is the path or the name of trained weights, such as"
            " pretrained='resnet50.a1_in1k', and takes no other options than variant."
        )
    model = from_pretrained(pretrained, variant=variant)
    found = known_as(model.trained.architecture)
    if found != name:
        raise UsageError(f"{pretrained} is not a {name}: it is {model.trained.origin}.")
    return model


def entry_point(name):
    """Returns a function that builds the named network."""
    function = partial(build, name)
    function.__doc__ = (
        f"Builds {name}: fresh, with the options of resnetkit.create_model; or trained, with"
        " pretrained=PATH_OR_NAME."
    )
    return function


globals().update({name: entry_point(name) for name in ARCHITECTURES})
