"""From a checkpoint as people have it to named tensors: wrappers and prefixes are taken off.

Training scripts save a state_dict alone or in an entry, next to a copy with averaged weights, and
under the prefixes of what the network was wrapped in. Nothing is guessed where two entries fit.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from resnetkit.errors import WeightsError
from resnetkit.weights.tensors import Tensors, is_tensors, read_file

__all__ = ["State", "read_state", "split_entry"]

ENTRIES = (
    *("state_dict", "model", "net", "model_state_dict", "network", "module", "weights", "params"),
    *("state_dict_ema", "model_ema", "ema", "ema_state_dict", "model_state_dict_ema"),
)
"""Where training scripts keep the state_dict: PyTorch's tutorials and references, Lightning, timm,
kuangliu/pytorch-cifar and their like."""

PREFIXES = ("module.", "_orig_mod.", "model.", "net.", "network.", "encoder.", "backbone.")
"""What names begin with after training on several GPUs, compiling, or in a module of one's own; a
network is found under any other name too."""

STEMS = {
    "conv1.weight": ("layer1.0.conv1.weight", ""),
    "conv1.0.weight": ("layer1.0.conv1.weight", ""),
    "embedder.embedder.convolution.weight": (
        "encoder.stages.0.layers.0.layer.0.convolution.weight",
        "resnet.",
    ),
}
"""First convolutions, the ones of the first blocks that come with them, and what belongs to their
names: torchvision's and transformers'."""

QUERY = "encoder_q."  # of the two networks of MoCo, the one that is used afterwards


@dataclass(frozen=True)
class State:
    """Named tensors, and how they were found.

    Attributes:
        tensors: by name, without wrappers and prefixes.
        found: what was taken off, in words for people; empty where nothing was.
    """

    tensors: Tensors
    found: str = ""


def split_entry(path: Path) -> tuple[Path, str]:
    """Returns a path and the entry that was named after it: FILE#ENTRY.

    A file whose own name holds the sign is a file.
    """
    name, sign, entry = str(path).rpartition("#")
    if sign and not path.exists() and Path(name).is_file():
        return Path(name), entry
    return path, ""


def read_state(path: Path, entry: str = "") -> State:
    """Returns the named tensors of a file.

    Args:
        path: see `read_file`.
        entry: which of several entries; empty where there is only one.

    Raises:
        WeightsError: as `read_file`; when there are no named tensors, two entries that hold some
            and none was named, or the named one holds none.
    """
    named = entry if entry.endswith(".") else ""  # a prefix, of two networks side by side
    tensors, found = entry_of(path, read_file(path), "" if named else entry)
    refuse_both(path, tensors)
    taken = [f"entry {found}"] if found else []
    prefix = prefix_of(path, tensors, named)
    if prefix:
        taken.append(f"names without {prefix}")
    own = {
        name.removeprefix(prefix): tensor
        for name, tensor in tensors.items()
        if name.startswith(prefix)
    }
    if prefix.endswith(QUERY):
        taken.append("the query encoder of MoCo without its projection head")
        own = {name: tensor for name, tensor in own.items() if not name.startswith("fc.")}
    elif others := [name for name in tensors if not name.startswith(prefix)]:
        more = ", ..." if len(others) > 3 else ""
        taken.append(f"without {len(others)} other tensor(s): {', '.join(others[:3])}{more}")
    return State(own, ", ".join(taken))


def prefix_of(path: Path, tensors: Tensors, named: str = "") -> str:
    """Returns what the names of a network begin with, such as `module.` or `model.backbone.`.

    Args:
        path: of the file.
        tensors: of the file.
        named: which of several; empty where there is only one.

    Raises:
        WeightsError: when there are several networks, none of which is known to be the one, or none
            has the prefix that was named.
    """
    found = dict.fromkeys(
        name.removesuffix(stem).removesuffix(own)
        for name in tensors
        for stem, (block, own) in STEMS.items()
        if name.endswith(stem) and f"{name.removesuffix(stem)}{block}" in tensors
    )
    prefixes = [prefix for prefix in found if not prefix or prefix.endswith(".")]
    if named and named not in prefixes:
        raise WeightsError(
            f"{path} has no network whose names begin with '{named}': expected one of"
            f" {', '.join(filter(None, prefixes[:5])) or 'none'}."
        )
    if named:
        return named
    if queries := [prefix for prefix in prefixes if prefix.endswith(QUERY)]:
        return queries[0]
    if len(prefixes) > 1:
        raise WeightsError(
            f"{path} holds several networks, whose names begin with"
            f" {', '.join(prefix or 'nothing' for prefix in prefixes[:5])}: name one, as in"
            f" '{path}#{max(prefixes[:5])}'."
        )
    return prefixes[0] if prefixes else ""


def entry_of(path: Path, content: object, entry: str) -> tuple[Tensors, str]:
    """Returns the named tensors of what a file holds, and in which entry they were."""
    candidates = {"": content} if is_tensors(content) else {}
    if isinstance(content, Mapping) and not candidates:
        for key in ENTRIES:
            inner = content.get(key)
            if isinstance(inner, Mapping) and not is_tensors(dict(inner)):  # ema: {module: ...}
                nested = [name for name in ENTRIES if is_tensors(dict(inner).get(name))]
                if len(nested) == 1:
                    candidates[key] = dict(inner)[nested[0]]
            elif isinstance(inner, Mapping):
                candidates[key] = dict(inner)
    candidates = candidates or dict(networks_in(content))
    if entry and entry not in candidates:
        raise WeightsError(
            f"{path} has no entry '{entry}' that holds named tensors: expected one of"
            f" {', '.join(filter(None, candidates)) or 'none'}."
        )
    if not candidates:
        return {}, ""
    if len(candidates) > 1 and not entry:
        names = list(candidates)
        raise WeightsError(
            f"{path} holds named tensors in the entries {', '.join(names)}, which may be different"
            f" networks, such as one with averaged weights: name one, as in {path}#{names[-1]}."
        )
    chosen = entry or next(iter(candidates))
    tensors = candidates[chosen]
    assert isinstance(tensors, dict)
    return dict(tensors), chosen


def networks_in(content: object) -> Iterator[tuple[str, Tensors]]:
    """Yields the networks that lie in entries of any other names, with these, joined by dots.

    Every mapping is looked at once, however often the file refers to it.
    """
    waiting: list[tuple[str, object]] = [("", content)]
    seen: set[int] = set()
    for name, inner in waiting:
        if not isinstance(inner, Mapping) or id(inner) in seen:
            continue
        seen.add(id(inner))
        tensors = dict(inner)
        if is_tensors(tensors):
            if any(each.endswith(tuple(STEMS)) for each in tensors):
                yield name, tensors
            continue
        waiting += [(f"{name}.{key}" if name else str(key), each) for key, each in inner.items()]


def refuse_both(path: Path, tensors: Tensors) -> None:
    """Raises WeightsError when a tensor is there with a prefix and without."""
    for prefix in PREFIXES:
        if any(name.removeprefix(prefix) in tensors for name in tensors if name.startswith(prefix)):
            raise WeightsError(f"{path} names a tensor twice, with '{prefix}' and without.")
