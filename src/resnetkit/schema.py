"""Checked values: the base class of a recipe's sections, and the types of their numbers."""

from typing import Annotated

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field

__all__ = ["Fraction", "Pixels", "Real", "Section", "Whole"]


def plain_number(value: object) -> object:
    """Refuses true and false for a number, and writes zero without a sign."""
    if isinstance(value, bool):
        raise ValueError("expected a number")
    return value + 0.0 if isinstance(value, float) else value


Whole = Annotated[int, BeforeValidator(plain_number)]
Real = Annotated[float, BeforeValidator(plain_number)]
Fraction = Annotated[float, BeforeValidator(plain_number), Field(gt=0, le=1)]
Pixels = Annotated[int, BeforeValidator(plain_number), Field(ge=1, le=2**14)]


class Section(BaseModel):
    """A group of keys: unknown keys are refused, values are finite, nothing changes later."""

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)
