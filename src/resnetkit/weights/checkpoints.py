"""Finds the state_dict in a checkpoint, and removes wrappers and prefixes from its names.

Training scripts save a state_dict alone or in an entry, next to a copy with averaged weights, and
under the prefixes of the modules that wrapped the network. Of two possible entries none is guessed.
"""

import re
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path
from typing import NamedTuple

from torch import Tensor

from resnetkit.errors import WeightsError
from resnetkit.untrusted import printable
from resnetkit.weights.tensors import Tensors, is_tensors, read_file
from resnetkit.weights.torch_files import Array

__all__ = ["State", "read_state", "split_entry"]

ENTRIES = (
    *("state_dict", "model", "net", "model_state_dict", "network", "module", "weights", "params"),
    *("state_dict_ema", "model_ema", "ema", "ema_state_dict", "model_state_dict_ema"),
)
"""Where training scripts keep the state_dict: PyTorch's tutorials and references, Lightning, timm,
kuangliu/pytorch-cifar and their like."""

PREFIXES = ("module.", "_orig_mod.", "model.", "net.", "network.", "encoder.", "backbone.")
"""Prefixes of training on several GPUs, of compilation and of wrapper modules; a network is found
under any other prefix too."""

WRAPPERS = re.compile("(?:" + "|".join(map(re.escape, PREFIXES)) + ")*")

MOST_NETWORKS = 256  # of a file, under all their names
DEEPEST = 20  # mappings and lists, one in the other, that are searched

STEMS = {
    "conv1.weight": ("layer1.0.conv1.weight", ""),
    "conv1.0.weight": ("layer1.0.conv1.weight", ""),
    "embedder.embedder.convolution.weight": (
        "encoder.stages.0.layers.0.layer.0.convolution.weight",
        "resnet.",
    ),
}
"""Name of a first convolution -> name of the convolution in the first block, and a prefix that
belongs to the names: of torchvision and of transformers."""

QUERY = "encoder_q."  # of the two networks of MoCo, the one to use after training


@dataclass(frozen=True)
class State:
    """The tensors of a network in a checkpoint.

    Attributes:
        tensors: tensors by name, without wrappers and prefixes.
        removed: what was removed from file and names, as phrases.
        others: other tensors of the file, by their full names.
        left_out: names of entries that are not read.
        prefix: prefix that was removed from the names.
    """

    tensors: Tensors
    removed: tuple[str, ...] = ()
    others: Tensors = field(default_factory=dict)
    left_out: tuple[str, ...] = ()
    prefix: str = ""

    @property
    def remarks(self) -> str:
        """What was removed and left out, for messages; empty if nothing was."""
        names = self.left_out
        more = ", ..." if len(names) > 3 else ""
        without = f"without {len(names)} other tensor(s): {', '.join(names[:3])}{more}"
        return ", ".join([*self.removed, *([without] if names else [])])


@dataclass(frozen=True)
class NetworkEntry:
    """A network in a file; a mapping of tensors may hold several networks, with other prefixes.

    Attributes:
        entry: name of the entry in the file; empty for the file itself.
        prefix: prefix of the names of the network's tensors.
        table: content of the entry.
        prefixes: prefixes of all networks in the entry.
    """

    entry: str
    prefix: str
    table: Mapping[object, object]
    prefixes: tuple[str, ...] = ()

    @property
    def name(self) -> str:
        """What selects this network in FILE#ENTRY."""
        return f"{self.entry}.{self.prefix}" if self.prefix else self.entry or "."


def split_entry(path: Path) -> tuple[Path, str | None]:
    """Splits FILE#ENTRY into the path and the entry; None for a path without an entry.

    A file whose own name contains the sign is a file.
    """
    name, sign, entry = str(path).rpartition("#")
    if sign and not path.exists() and Path(name).is_file():
        return Path(name), entry or None
    return path, None


def read_state(path: Path, entry: str | None = None) -> State:
    """Returns the named tensors of a file.

    Args:
        path: see `read_file`.
        entry: selects one of several networks: its entry, the prefix of its names, or both with a
            dot between them; a dot alone selects the network without a prefix.

    Raises:
        WeightsError: as in `read_file`; or if there are no named tensors, several networks without
            a selection, none that matches the selection, or very many.
    """
    content = read_file(path)
    candidates = list(islice(candidates_in(content), MOST_NETWORKS + 1))
    if len(candidates) > MOST_NETWORKS:
        raise WeightsError(
            f"{path} holds more than {MOST_NETWORKS} networks: save the one that you need in a file"
            " of its own."
        )
    network = chosen(path, candidates or remaining_tables(content), entry)
    if network is None:
        raise WeightsError(
            f"{path} is in no format that resnetkit reads: it holds {describe(content)},"
            " expected a mapping of names to tensors. Save model.state_dict() in the program that"
            " wrote the file."
        )
    prefix = network.prefix
    longer = tuple(
        other for other in network.prefixes if other != prefix and other.startswith(prefix)
    )
    ours: dict[str, object] = {}
    others: dict[str, object] = {}
    for name, tensor in network.table.items():
        inside = isinstance(name, str) and name.startswith(prefix) and not name.startswith(longer)
        target = ours if inside and isinstance(tensor, Tensor | Array) else others
        target[str(name)] = tensor
    ours = {name.removeprefix(prefix): tensor for name, tensor in ours.items()}
    duplicates = duplicate_names(ours, others)
    if duplicates and entry is None:
        raise WeightsError(
            f"{path} names a tensor twice, with a prefix and without: {duplicates[0]}. To"
            f" read it without the duplicates: '{path}#{network.name}'."
        )
    prefixed = [name for name in duplicates if name not in others]  # once more than the network
    left_out = [*others, *(name for name in prefixed if ours.pop(name, None) is not None)]
    removed = [f"entry {network.entry}"] if network.entry else []
    if prefix:
        removed.append(f"names without {prefix}")
    if prefix.endswith(QUERY):
        removed.append("the query encoder of MoCo without its projection head")
        ours = {name: tensor for name, tensor in ours.items() if not name.startswith("fc.")}
        left_out = []
    own_tensors, other_tensors = as_tensors(path, ours), as_tensors(path, others)
    return State(own_tensors, tuple(removed), other_tensors, tuple(left_out), prefix)


class Position(NamedTuple):
    """The position of a mapping or list in a file; the file itself has no parent.

    Attributes:
        parent: position of the mapping or list that holds it.
        key: its key or number there.
        depth: number of mappings and lists that hold it.
    """

    parent: "Position | None" = None
    key: object = ""
    depth: int = 0

    @property
    def entry(self) -> str:
        """Keys that lead to it, joined by dots; empty for the file itself."""
        return f"{self.parent.entry}.{self.key}".removeprefix(".") if self.parent else ""


def candidates_in(content: object) -> Iterator[NetworkEntry]:
    """Yields the networks of a file, under each of their names.

    A mapping to which a file refers more than once is searched once.
    """
    prefixes: dict[int, tuple[str, ...]] = {}
    for position, table in tables_in(content):
        if id(table) not in prefixes:
            prefixes[id(table)] = tuple(prefixes_in(table))
        for prefix in prefixes[id(table)]:
            yield NetworkEntry(position.entry, prefix, table, prefixes[id(table)])


def tables_in(content: object) -> Iterator[tuple[Position, Mapping[object, object]]]:
    """Yields the mappings of a file that may hold tensors, the outer ones first.

    A mapping is yielded for each reference to it, but what is in it once.
    """
    if isinstance(content, dict):
        yield Position(), content
    pending = deque([(Position(), content)])
    searched = {id(content)}
    while pending:
        position, outer = pending.popleft()
        for key, inner in items_of(outer):
            if not isinstance(inner, CONTAINERS):
                continue
            below = Position(position, key, position.depth + 1)
            if isinstance(inner, dict):
                yield below, inner
            if id(inner) not in searched and below.depth < DEEPEST:
                searched.add(id(inner))
                pending.append((below, inner))


CONTAINERS = (dict, list, tuple)


def items_of(container: object) -> Iterable[tuple[object, object]]:
    """Returns keys and values of a mapping or list; nothing for other values."""
    if isinstance(container, dict):
        return container.items()
    return enumerate(container) if isinstance(container, list | tuple) else ()


def prefixes_in(table: Mapping[object, object]) -> Iterable[str]:
    """Returns the prefixes of the networks in a mapping of tensors, such as `model.backbone.`."""
    prefixes = dict.fromkeys(
        name.removesuffix(stem).removesuffix(ours)
        for name, tensor in table.items()
        if isinstance(name, str) and isinstance(tensor, Tensor | Array)
        for stem, (block, ours) in STEMS.items()
        if name.endswith(stem) and f"{name.removesuffix(stem)}{block}" in table
    )
    return [prefix for prefix in prefixes if not prefix or prefix.endswith(".")]


def remaining_tables(content: object) -> list[NetworkEntry]:
    """Returns the first mapping of tensors in a usual entry, for networks of other kinds."""
    others: set[int] = set()
    for position, table in tables_in(content):
        if position.key in ("", *ENTRIES) and id(table) not in others:
            if is_tensors(table):
                return [NetworkEntry(position.entry, "", table)]
            others.add(id(table))
    return []


def chosen(path: Path, networks: list[NetworkEntry], name: str | None) -> NetworkEntry | None:
    """Returns the network of a name, or the only network; None if there is no network.

    Raises:
        WeightsError: if no network has the name, or there are several without a name.
    """
    if name and not named(networks, name):
        kind = "network whose names begin with" if name.endswith(".") else "entry"
        raise WeightsError(
            f"{path} has no {kind} '{name}'{'' if name.endswith('.') else ' that holds a network'}:"
            f" expected one of {', '.join(short_names(networks)[:5]) or 'none'}."
        )
    if name:
        networks = named(networks, name)
    else:
        networks = [network for network in networks if is_used_after_training(network)]
    by_content = {(id(network.table), network.prefix): network for network in reversed(networks)}
    different = list(by_content.values())
    if len(different) <= 1:
        return networks[0] if networks else None
    names = short_names(networks)[:5]
    if len({id(network.table) for network in networks}) == 1:
        without = ["nothing" if name == "." else name for name in names]
        raise WeightsError(
            f"{path} holds several networks, whose names begin with {', '.join(without)}: select"
            f" one, as in '{path}#{names[0]}'."
        )
    raise WeightsError(
        f"{path} holds named tensors in the entries {', '.join(names)}, which may be different"
        f" networks, such as one with averaged weights: select one, as in '{path}#{names[-1]}'."
    )


def is_used_after_training(network: NetworkEntry) -> bool:
    """Returns False for the network of MoCo that only training uses."""
    return network.prefix.endswith(QUERY) or not any(
        prefix.endswith(QUERY) for prefix in network.prefixes
    )


def named(networks: list[NetworkEntry], name: str) -> list[NetworkEntry]:
    """Returns the networks of a name: of the full name, the prefix, or the entry."""
    name = name.removesuffix(".")
    matches: tuple[Callable[[NetworkEntry], bool], ...] = (
        lambda network: network.name.removesuffix(".") == name,
        lambda network: network.prefix.removesuffix(".") == name,
        lambda network: network.entry == name,
        lambda network: network.entry.startswith(f"{name}."),
    )
    for match in matches:
        if matching := [network for network in networks if match(network)]:
            return matching
    return []


def short_names(networks: list[NetworkEntry]) -> list[str]:
    """Returns names that distinguish networks: prefixes if they are in one entry."""
    if len({id(network.table) for network in networks}) == 1 and len(networks) > 1:
        return [network.prefix or "." for network in networks]
    return list(
        dict.fromkeys(
            network.entry if network.entry and len(network.prefixes) <= 1 else network.name
            for network in networks
        )
    )


def duplicate_names(ours: Mapping[str, object], others: Mapping[str, object]) -> list[str]:
    """Returns the names that occur with a prefix and without."""
    bare = {name: without_prefixes(name) for name in ours}
    return [
        *(name for name, short in bare.items() if short != name and short in ours),
        *(name for name in others if without_prefixes(name) in ours),
    ]


def without_prefixes(name: str) -> str:
    """Returns a name without the prefixes of wrappers."""
    wrappers = WRAPPERS.match(name)
    return name[wrappers.end() :] if wrappers else name


def as_tensors(path: Path, values: Mapping[str, object]) -> Tensors:
    """Returns the tensors among the values of a file; arrays of NumPy become tensors.

    Raises:
        WeightsError: if an array does not hold plain numbers, or all are larger than the file.
    """
    remaining = path.stat().st_size
    tensors: Tensors = {}
    for name, value in values.items():
        if isinstance(value, Tensor):
            tensors[name] = value
        elif isinstance(value, Array):
            try:
                tensors[name] = value.tensor(remaining)
            except ValueError as error:
                raise WeightsError(
                    f"{path}: '{name}' cannot be read: {error}. Save model.state_dict() instead."
                ) from error
            remaining -= tensors[name].nbytes
    return tensors


def describe(content: object) -> str:
    """Returns what a file holds instead of a network, for messages."""
    if isinstance(content, Mapping):
        keys = ", ".join(printable(str(key))[:40] for key in list(content)[:5])
        more = ", ..." if len(content) > 5 else ""
        return f"a dict with the keys {keys}{more}" if content else "an empty dict"
    if isinstance(content, list | tuple):
        return f"a {type(content).__name__} of {len(content)} item(s)"
    if isinstance(content, Tensor | Array):
        return "a single tensor without a name"
    if isinstance(content, str | bytes | int | float):
        return f"one {type(content).__name__}"
    return "nothing" if content is None else "an object that is not a dict"
