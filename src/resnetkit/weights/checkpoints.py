"""From a checkpoint as people have it to named tensors: wrappers and prefixes are taken off.

Training scripts save a state_dict alone or in an entry, next to a copy with averaged weights, and
under the prefixes of what the network was wrapped in. Nothing is guessed where two entries fit.
"""

from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path

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
        taken: what was taken off, in words for people.
        others: tensors beside the network, under their whole names.
        left_out: names of what is not read.
        prefix: that was taken off the names.
    """

    tensors: Tensors
    taken: tuple[str, ...] = ()
    others: Tensors = field(default_factory=dict)
    left_out: tuple[str, ...] = ()
    prefix: str = ""

    @property
    def found(self) -> str:
        """What was taken off and left out, in words; empty where nothing was."""
        names = self.left_out
        more = ", ..." if len(names) > 3 else ""
        without = f"without {len(names)} other tensor(s): {', '.join(names[:3])}{more}"
        return ", ".join([*self.taken, *([without] if names else [])])


@dataclass(frozen=True)
class Candidate:
    """A network of a file; a table of tensors may hold several, told apart by their prefixes.

    Attributes:
        entry: of the file; empty for all of it.
        prefix: what the names of the network's tensors begin with.
        table: the entry.
        prefixes: of all networks in the table.
    """

    entry: str
    prefix: str
    table: Mapping[object, object]
    prefixes: tuple[str, ...] = ()

    @property
    def name(self) -> str:
        """What FILE# is followed by to name the network."""
        return f"{self.entry}.{self.prefix}" if self.prefix else self.entry or "."


def split_entry(path: Path) -> tuple[Path, str | None]:
    """Returns a path and the entry that was named after it: FILE#ENTRY, or None.

    A file whose own name holds the sign is a file.
    """
    name, sign, entry = str(path).rpartition("#")
    if sign and not path.exists() and Path(name).is_file():
        return Path(name), entry or None
    return path, None


def read_state(path: Path, entry: str | None = None) -> State:
    """Returns the named tensors of a file.

    Args:
        path: see `read_file`.
        entry: which of several networks: its entry, the prefix of its names, or both with a dot
            between them; a dot alone is the one without a prefix. Empty where there is only one.

    Raises:
        WeightsError: as `read_file`; when there are no named tensors, two networks and none was
            named, or the one that was named is not there.
    """
    content = read_file(path)
    network = chosen(path, list(candidates_in(content)) or remaining_tables(content), entry)
    if network is None:
        raise WeightsError(
            f"{path} is in no format that resnetkit reads: it holds {in_words(content)},"
            " expected a table of named tensors. Save model.state_dict() where it comes from."
        )
    prefix = network.prefix
    longer = tuple(each for each in network.prefixes if each != prefix and each.startswith(prefix))
    own: dict[str, object] = {}
    others: dict[str, object] = {}
    for name, tensor in network.table.items():
        inside = isinstance(name, str) and name.startswith(prefix) and not name.startswith(longer)
        target = own if inside and isinstance(tensor, Tensor | Array) else others
        target[str(name)] = tensor
    own = {name.removeprefix(prefix): tensor for name, tensor in own.items()}
    twice = names_twice(own, others)
    if twice and entry is None:
        raise WeightsError(
            f"{path} names a tensor twice, with a prefix and without: {twice[0]}. Name the"
            f" network to read it without such others: '{path}#{network.name}'."
        )
    again = [name for name in twice if name not in others]  # a prefix more than the network's
    left_out = [*others, *(name for name in again if own.pop(name, None) is not None)]
    taken = [f"entry {network.entry}"] if network.entry else []
    if prefix:
        taken.append(f"names without {prefix}")
    if prefix.endswith(QUERY):
        taken.append("the query encoder of MoCo without its projection head")
        own = {name: tensor for name, tensor in own.items() if not name.startswith("fc.")}
        left_out = []
    own_tensors, other_tensors = as_tensors(path, own), as_tensors(path, others)
    return State(own_tensors, tuple(taken), other_tensors, tuple(left_out), prefix)


def candidates_in(content: object) -> Iterator[Candidate]:
    """Yields the networks of a file, in entries of any names, which are joined by dots.

    Every mapping and list is looked through once, however often the file refers to it.
    """
    for entry, table in tables_in(content):
        prefixes = tuple(prefixes_in(table))
        for prefix in prefixes:
            yield Candidate(entry, prefix, table, prefixes)


def tables_in(content: object) -> Iterator[tuple[str, Mapping[object, object]]]:
    """Yields the mappings of a file that may hold tensors, and their entries."""
    waiting: list[tuple[str, object]] = [("", content)]
    seen: set[int] = set()
    for entry, inner in waiting:
        if isinstance(inner, Mapping):
            yield entry, inner
        if not isinstance(inner, Mapping | list | tuple) or id(inner) in seen:
            continue
        seen.add(id(inner))
        items = inner.items() if isinstance(inner, Mapping) else enumerate(inner)
        waiting += [
            (f"{entry}.{key}" if entry else str(key), value)
            for key, value in items
            if isinstance(value, Mapping | list | tuple)
        ]


def prefixes_in(table: Mapping[object, object]) -> Iterable[str]:
    """Returns what the names of the networks in a table begin with, such as `model.backbone.`."""
    prefixes = dict.fromkeys(
        name.removesuffix(stem).removesuffix(own)
        for name, tensor in table.items()
        if isinstance(name, str) and isinstance(tensor, Tensor | Array)
        for stem, (block, own) in STEMS.items()
        if name.endswith(stem) and f"{name.removesuffix(stem)}{block}" in table
    )
    return [prefix for prefix in prefixes if not prefix or prefix.endswith(".")]


def remaining_tables(content: object) -> list[Candidate]:
    """Returns the first table of tensors where state_dicts are kept, of networks of other kinds."""
    for entry, table in tables_in(content):
        if is_tensors(dict(table)) and entry.rpartition(".")[2] in ("", *ENTRIES):
            return [Candidate(entry, "", table)]
    return []


def chosen(path: Path, networks: list[Candidate], name: str | None) -> Candidate | None:
    """Returns the network that was named, or the only one; None where there is none.

    Raises:
        WeightsError: when it is not there, or there are several.
    """
    if name and not named(networks, name):
        what = "network whose names begin with" if name.endswith(".") else "entry"
        raise WeightsError(
            f"{path} has no {what} '{name}'{'' if name.endswith('.') else ' that holds a network'}:"
            f" expected one of {', '.join(short_names(networks)[:5]) or 'none'}."
        )
    if name:
        networks = named(networks, name)
    else:
        networks = [each for each in networks if is_used_afterwards(each)]
    different = list({(id(each.table), each.prefix): each for each in reversed(networks)}.values())
    if len(different) <= 1:
        return networks[0] if networks else None
    names = short_names(networks)[:5]
    if len({id(each.table) for each in networks}) == 1:
        without = [each.replace(".", "nothing") if each == "." else each for each in names]
        raise WeightsError(
            f"{path} holds several networks, whose names begin with {', '.join(without)}: name one,"
            f" as in '{path}#{names[0]}'."
        )
    raise WeightsError(
        f"{path} holds named tensors in the entries {', '.join(names)}, which may be different"
        f" networks, such as one with averaged weights: name one, as in '{path}#{names[-1]}'."
    )


def is_used_afterwards(network: Candidate) -> bool:
    """Returns whether a network is not the one of MoCo that only its training needs."""
    return network.prefix.endswith(QUERY) or not any(
        prefix.endswith(QUERY) for prefix in network.prefixes
    )


def named(networks: list[Candidate], name: str) -> list[Candidate]:
    """Returns the networks that a name means: by all of it, by prefix, or by entry."""
    name = name.removesuffix(".")
    ways: tuple[Callable[[Candidate], bool], ...] = (
        lambda each: each.name.removesuffix(".") == name,
        lambda each: each.prefix.removesuffix(".") == name,
        lambda each: each.entry == name,
        lambda each: each.entry.startswith(f"{name}."),
    )
    for way in ways:
        if matching := [each for each in networks if way(each)]:
            return matching
    return []


def short_names(networks: list[Candidate]) -> list[str]:
    """Returns names by which networks are told apart: prefixes where they lie in one entry."""
    if len({id(each.table) for each in networks}) == 1 and len(networks) > 1:
        return [each.prefix or "." for each in networks]
    return list(
        dict.fromkeys(
            each.entry if each.entry and len(each.prefixes) <= 1 else each.name for each in networks
        )
    )


def names_twice(own: Mapping[str, object], others: Mapping[str, object]) -> list[str]:
    """Returns the names that are there with a prefix and without."""
    bare = {name: without_prefixes(name) for name in own}
    return [
        *(name for name, short in bare.items() if short != name and short in own),
        *(name for name in others if without_prefixes(name) in own),
    ]


def without_prefixes(name: str) -> str:
    """Returns a name without what wrappers put before it."""
    while prefix := next((each for each in PREFIXES if name.startswith(each)), ""):
        name = name.removeprefix(prefix)
    return name


def as_tensors(path: Path, values: Mapping[str, object]) -> Tensors:
    """Returns the tensors among values of a file; arrays of NumPy are made some.

    Raises:
        WeightsError: when an array holds no plain numbers, or all take more than the file.
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


def in_words(content: object) -> str:
    """Returns what a file holds instead of a network, for people."""
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
    return "nothing" if content is None else "an object that is no dict"
