"""Options of several commands, with their help."""

from typing import Annotated, Literal

from cyclopts import Parameter

from resnetkit.errors import UsageError

__all__ = [
    "BatchSize",
    "Changes",
    "Device",
    "Json",
    "Lang",
    "Precision",
    "Variant",
    "parse_changes",
]

Json = Annotated[bool, Parameter(negative=(), help="Print JSON.")]

Device = Annotated[
    str, Parameter(help="cpu, cuda, cuda:N or auto, the default: a GPU if there is one.")
]

Lang = Annotated[str, Parameter(help="Language of the report: en, the default, or ko.")]

BatchSize = Annotated[int, Parameter(help="Images in a batch; 32 by default.")]

Precision = Annotated[
    Literal["auto", "float32", "bfloat16"],
    Parameter(help="float32, the default; bfloat16; or auto."),
]

Variant = Annotated[
    str | None,
    Parameter(
        help="v1 or v1.5: where bottlenecks stride, for a file of weights that does not say so."
    ),
]

Changes = Annotated[
    tuple[str, ...],
    Parameter(
        name="--set",
        negative=(),
        help="Replace a value of the recipe or network: KEY=VALUE; may be repeated.",
    ),
]


def parse_changes(changes: tuple[str, ...]) -> dict[str, object]:
    """Returns the values of KEY=VALUE arguments by dotted key; a value is read as YAML.

    Raises:
        UsageError: when an argument does not have this form.
    """
    from resnetkit.strict_yaml import YAML_ERRORS, parse_yaml

    parsed: dict[str, object] = {}
    for change in changes:
        key, equals, value = change.partition("=")
        if not equals or not key:
            raise UsageError(
                f"--set {change}: expected KEY=VALUE, such as --set optimizer.lr=0.05."
            )
        try:
            parsed[key] = parse_yaml(value)
        except YAML_ERRORS as error:
            problem = getattr(error, "problem", "") or "it is not YAML"
            raise UsageError(
                f"--set {change}: {problem}. Put it in quotes if it is a word."
            ) from None
    return parsed
