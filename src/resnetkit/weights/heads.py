"""Heads under any name: a single linear layer becomes ours, a projection head is left out."""

from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path

from resnetkit.errors import WeightsError
from resnetkit.weights.checkpoints import State
from resnetkit.weights.layout import features_of
from resnetkit.weights.tensors import Tensors

__all__ = ["with_known_head"]

ROOTS = ("fc", "head", "classifier", "linear", "last_linear", "cls_head", "logits", "output")
"""What the head of a network is called; its layers are also named with a further word or number."""

PROJECTIONS = ("projection_head", "prototypes", "projector", "projection", "predictor", "queue")
"""What self-supervised training puts behind a network, and nobody needs afterwards."""

FAMILIAR = ("fc.weight", "fc.bias")


def with_known_head(path: Path, state: State) -> State:
    """Returns a state whose head is `fc`, or which has none.

    The head is the one linear layer that is named as heads are, within the network or beside it. A
    head of several layers and a projection head are left out, and named.

    Args:
        path: of the file.
        state: with torchvision's names.

    Raises:
        WeightsError: when the head has no bias, or is not stored as it computes.
    """
    refuse_reparametrized(path, [*state.tensors])
    if set(FAMILIAR) <= set(state.tensors):
        return without(state, beginning_with(state.tensors, PROJECTIONS))
    inside = beginning_with(state.tensors, ROOTS)
    if inside:
        refuse_missing_bias(path, state.tensors, inside)
        layer = single_layer(state.tensors, inside)
        if layer:
            state = head_said(replace(state, tensors=moved(state.tensors, inside, layer)), layer)
            return without(state, beginning_with(state.tensors, PROJECTIONS))
    state = without(state, [*inside, *beginning_with(state.tensors, PROJECTIONS)])
    return state if inside else with_outside_head(state)


def with_outside_head(state: State) -> State:
    """Returns a state with the head that lies beside a network, where one fits it."""
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
    return head_said(
        replace(
            state,
            tensors={**state.tensors, "fc.weight": weight, "fc.bias": others[f"{layer}.bias"]},
            left_out=tuple(name for name in state.left_out if name not in used),
        ),
        layer,
    )


def bare(name: str, prefix: str) -> str:
    """Returns the name of a tensor beside a network, without what both names begin with."""
    for word in prefix.split("."):
        if not word or not name.startswith(f"{word}."):
            return name
        name = name.removeprefix(f"{word}.")
    return name


def beginning_with(names: Iterable[str], words: tuple[str, ...]) -> list[str]:
    """Returns the names whose first word is one of some."""
    return [name for name in names if name.partition(".")[0] in words]


def single_layer(tensors: Tensors, names: list[str]) -> str:
    """Returns the linear layer that names are of; empty when they are of anything else."""
    layers = {name.rpartition(".")[0] for name in names}
    layer = layers.pop() if len(layers) == 1 else ""
    if not layer or {f"{layer}.weight", f"{layer}.bias"} != set(names):
        return ""
    return layer if tensors[f"{layer}.weight"].dim() == 2 else ""


def moved(tensors: Tensors, names: list[str], layer: str) -> Tensors:
    """Returns tensors with a head under our name."""
    kept = {name: tensor for name, tensor in tensors.items() if name not in names}
    return {**kept, **{ours: tensors[layer + ours.removeprefix("fc")] for ours in FAMILIAR}}


def head_said(state: State, layer: str) -> State:
    """Returns a state that says which layer its head was."""
    return replace(state, taken=(*state.taken, f"head {layer}"))


def without(state: State, names: list[str]) -> State:
    """Returns a state without some tensors, which are named."""
    kept = {name: tensor for name, tensor in state.tensors.items() if name not in names}
    return replace(state, tensors=kept, left_out=(*state.left_out, *names))


def refuse_missing_bias(path: Path, tensors: Tensors, names: list[str]) -> None:
    """Raises WeightsError for a single matrix: with normalized features, it computes otherwise."""
    if len(names) == 1 and names[0].endswith(".weight") and tensors[names[0]].dim() == 2:
        raise WeightsError(
            f"{path} has another head than one layer with a bias: '{names[0]}' alone. Some such"
            f" heads normalize their input, which the file does not say: expected '{names[0]}' and"
            f" '{names[0].removesuffix('weight')}bias'. If yours is a plain linear layer, add a"
            " bias of zeros; without the head the rest is read, to start from or for features."
        )


def refuse_reparametrized(path: Path, names: list[str]) -> None:
    """Raises WeightsError where weights are stored as something else that they are made of."""
    for ending, words in {
        ".weight_orig": "pruned: call torch.nn.utils.prune.remove",
        ".weight_g": "stored as length and direction: call torch.nn.utils.remove_weight_norm",
        ".weight.original0": (
            "parametrized: call torch.nn.utils.parametrize.remove_parametrizations"
        ),
    }.items():
        if name := next((name for name in names if name.endswith(ending)), ""):
            raise WeightsError(
                f"{path}: the weight of '{name.removesuffix(ending)}' is {words} before saving"
                " the state_dict."
            )
