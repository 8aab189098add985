"""Heads of any name: a single linear layer is renamed to `fc`, a projection head is left out."""

from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path

from resnetkit.errors import WeightsError
from resnetkit.weights.checkpoints import State
from resnetkit.weights.layout import features_of
from resnetkit.weights.tensors import Tensors

__all__ = ["with_our_head"]

ROOTS = ("fc", "head", "classifier", "linear", "last_linear", "cls_head", "logits", "output")
"""Names of heads; their layers may have a further word or number in their names."""

PROJECTIONS = ("projection_head", "prototypes", "projector", "projection", "predictor", "queue")
"""What self-supervised training adds to a network and is not needed afterwards."""

OURS = ("fc.weight", "fc.bias")


def with_our_head(path: Path, state: State) -> State:
    """Returns a state whose head is named `fc`, or which has no head.

    The head is the one linear layer with the name of a head, in the network or next to it. A head
    of several layers and a projection head are left out, and listed as such.

    Args:
        path: path of the file.
        state: tensors with torchvision's names.

    Raises:
        WeightsError: if the head has no bias, or a layer is reparametrized.
    """
    refuse_reparametrized(path, [*state.tensors])
    if set(OURS) <= set(state.tensors):
        return without(state, beginning_with(state.tensors, PROJECTIONS))
    inside = beginning_with(state.tensors, ROOTS)
    if inside:
        refuse_missing_bias(path, state.tensors, inside)
        layer = single_layer(state.tensors, inside)
        if layer:
            state = with_head_remark(
                replace(state, tensors=moved(state.tensors, inside, layer)), layer
            )
            return without(state, beginning_with(state.tensors, PROJECTIONS))
    state = without(state, [*inside, *beginning_with(state.tensors, PROJECTIONS)])
    return state if inside else with_outside_head(state)


def with_outside_head(state: State) -> State:
    """Returns a state with the head next to its network, if one fits."""
    names = {bare(name, state.prefix): name for name in state.others}
    others = {short: state.others[name] for short, name in names.items()}
    heads = beginning_with(others, ROOTS)
    layer = single_layer(others, heads)
    if not layer or f"{layer}.bias" not in others:
        return state
    weight = others[f"{layer}.weight"]
    if weight.shape[1] != features_of(state.tensors):
        return state
    used = {names[f"{layer}.weight"], names[f"{layer}.bias"]}
    return with_head_remark(
        replace(
            state,
            tensors={**state.tensors, "fc.weight": weight, "fc.bias": others[f"{layer}.bias"]},
            left_out=tuple(name for name in state.left_out if name not in used),
        ),
        layer,
    )


def bare(name: str, prefix: str) -> str:
    """Returns the name of a tensor next to a network, without the prefix of both."""
    for word in prefix.split("."):
        if not word or not name.startswith(f"{word}."):
            return name
        name = name.removeprefix(f"{word}.")
    return name


def beginning_with(names: Iterable[str], roots: tuple[str, ...]) -> list[str]:
    """Returns the names whose first component is one of `roots`."""
    return [name for name in names if name.partition(".")[0] in roots]


def single_layer(tensors: Tensors, names: list[str]) -> str | None:
    """Returns the name of the linear layer with exactly these tensors; None if there is none."""
    layers = {name.rpartition(".")[0] for name in names}
    layer = layers.pop() if len(layers) == 1 else None
    if not layer or {f"{layer}.weight", f"{layer}.bias"} != set(names):
        return None
    return layer if tensors[f"{layer}.weight"].dim() == 2 else None


def moved(tensors: Tensors, names: list[str], layer: str) -> Tensors:
    """Returns tensors whose head has our name."""
    head = set(names)
    body = {name: tensor for name, tensor in tensors.items() if name not in head}
    return {**body, **{ours: tensors[layer + ours.removeprefix("fc")] for ours in OURS}}


def with_head_remark(state: State, layer: str) -> State:
    """Returns a state whose remarks name the layer that its head was."""
    return replace(state, removed=(*state.removed, f"head {layer}"))


def without(state: State, names: list[str]) -> State:
    """Returns a state without some tensors, which its remarks list."""
    removed = set(names)
    remaining = {name: tensor for name, tensor in state.tensors.items() if name not in removed}
    return replace(state, tensors=remaining, left_out=(*state.left_out, *names))


def refuse_missing_bias(path: Path, tensors: Tensors, names: list[str]) -> None:
    """Raises WeightsError for a weight alone: such heads may normalize their input."""
    if len(names) == 1 and names[0].endswith(".weight") and tensors[names[0]].dim() == 2:
        raise WeightsError(
            f"{path} has another head than one layer with a bias: '{names[0]}' alone. Some such"
            f" heads normalize their input, which the file does not say: expected '{names[0]}' and"
            f" '{names[0].removesuffix('weight')}bias'. If yours is a plain linear layer, add a"
            " bias of zeros; without the head the rest is read, to start from or for features."
        )


def refuse_reparametrized(path: Path, names: list[str]) -> None:
    """Raises WeightsError for weights that are stored as the factors they are computed from."""
    for ending, state in {
        ".weight_orig": "pruned: call torch.nn.utils.prune.remove",
        ".weight_g": "stored as length and direction: call torch.nn.utils.remove_weight_norm",
        ".weight.original0": (
            "parametrized: call torch.nn.utils.parametrize.remove_parametrizations"
        ),
    }.items():
        if name := next((name for name in names if name.endswith(ending)), ""):
            raise WeightsError(
                f"{path}: the weight of '{name.removesuffix(ending)}' is {state} before saving"
                " the state_dict."
            )
