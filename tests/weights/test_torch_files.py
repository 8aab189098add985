"""What torch.save has written, compared with torch.load; and files made to fill memory or time."""

import argparse
import io
import pickle
import resource
import struct
import subprocess
import sys
import zipfile
from collections import Counter, OrderedDict, defaultdict
from collections.abc import Callable, Iterable
from decimal import Decimal
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from resnetkit.errors import WeightsError
from resnetkit.models.zoo import Architecture
from resnetkit.weights import torch_files
from resnetkit.weights.tensors import read_file

DTYPES = [torch.float32, torch.float64, torch.float16, torch.bfloat16, torch.int64, torch.int32]
DTYPES += [torch.int16, torch.int8, torch.uint8, torch.bool, torch.complex64]


def kinds_of_tensors() -> dict[str, torch.Tensor]:
    base = torch.arange(24.0).reshape(4, 6)
    return {
        **{str(dtype): torch.arange(5).to(dtype) for dtype in DTYPES},
        "empty": torch.empty(0, 3),
        "a number": torch.tensor(7.5),
        "base": base,
        "a view": base[1:3, ::2],
        "turned": base.T,
        "channels last": torch.randn(2, 3, 4, 5).contiguous(memory_format=torch.channels_last),
        "a parameter": torch.nn.Parameter(torch.ones(3)),
    }


def checkpoint() -> dict[str, Any]:
    model = torch.nn.Linear(2, 3)
    optimizer = torch.optim.Adam(model.parameters())
    model(torch.ones(1, 2)).sum().backward()
    optimizer.step()
    return {"model": model.state_dict(), "optimizer": optimizer.state_dict(), "epoch": 3, "b": b"x"}


@pytest.mark.parametrize("zipped", [True, False])
def test_tensors_are_those_that_torch_loads(zipped: bool, tmp_path: Path) -> None:
    path = tmp_path / "net"
    torch.save(kinds_of_tensors(), path, _use_new_zipfile_serialization=zipped)
    theirs, ours = torch.load(path, weights_only=True), read_file(path)
    assert list(ours) == list(theirs)
    for name, tensor in theirs.items():
        assert ours[name].dtype == tensor.dtype, name
        assert ours[name].stride() == tensor.stride(), name
        assert torch.equal(ours[name], tensor), name
    assert ours["base"].untyped_storage().data_ptr() == ours["turned"].untyped_storage().data_ptr()


@pytest.mark.parametrize("zipped", [True, False])
@pytest.mark.parametrize("protocol", [2, 4, 5])
def test_a_whole_checkpoint_is_read(zipped: bool, protocol: int, tmp_path: Path) -> None:
    path, whole = tmp_path / "net", checkpoint()
    torch.save(whole, path, pickle_protocol=protocol, _use_new_zipfile_serialization=zipped)
    ours = read_file(path)
    assert ours["epoch"] == 3
    assert ours["optimizer"]["param_groups"] == whole["optimizer"]["param_groups"]
    for name, tensor in whole["model"].items():
        assert torch.equal(ours["model"][name], tensor)
    assert torch.equal(
        ours["optimizer"]["state"][0]["exp_avg"], whole["optimizer"]["state"][0]["exp_avg"]
    )


NEXT_TO_TENSORS: dict[str, Any] = {
    "options": argparse.Namespace(lr=0.1, milestones=[1, 2]),
    "a path": Path("x"),
    "a number of numpy": np.float64(0.5),
    "a table of numpy": np.arange(3),
    "a state of numpy": np.random.default_rng(0).bit_generator.state,
    "counts": Counter("aab"),
    "lists": defaultdict(list, a=[1]),
    "a set": {1, 2},
    "a size": torch.Size([1, 2]),
    "a device": torch.device("cpu"),
    "a type": torch.float16,
    "a complex number": 1j,
    "a range": range(3),
    "a slice": slice(1, 2),
    "decimals": Decimal("1.5"),
    "a fraction": Fraction(1, 3),
    "bytes": b"\xff",
    "ordered": OrderedDict(a=1),
    "a sparse table": torch.eye(3).to_sparse(),
    "without values": torch.empty(3, device="meta"),
}


@pytest.mark.parametrize("what", NEXT_TO_TENSORS)
def test_what_lies_next_to_tensors_does_not_matter(what: str, tmp_path: Path) -> None:
    torch.save({"state_dict": {"w": torch.ones(2)}, "rest": NEXT_TO_TENSORS[what]}, tmp_path / "x")
    assert torch.equal(read_file(tmp_path / "x")["state_dict"]["w"], torch.ones(2))


def named(module: str, name: str, *arguments: bytes) -> bytes:
    """Returns the pickled call of something by name."""
    return f"c{module}\n{name}\n".encode() + b"(" + b"".join(arguments) + b"tR"


def number(value: int) -> bytes:
    return pickle.dumps(value, 2)[2:-1]


def archive(path: Path, program: bytes, **records: bytes) -> Path:
    with zipfile.ZipFile(path, "w") as file:
        file.writestr("archive/data.pkl", b"\x80\x02" + program + b".")
        for name, content in records.items():
            file.writestr(f"archive/data/{name}", content)
    return path


FLOAT = b"ctorch\nFloatStorage\n"


def storage(count: int, key: bytes = b"U\x010") -> bytes:
    return b"(U\x07storage" + FLOAT + key + b"U\x03cpu" + number(count) + b"tQ"


def rebuilt(count: int, offset: int, size: int, stride: int) -> bytes:
    arguments = number(offset), number(size) + b"\x85", number(stride) + b"\x85", b"\x89N"
    return named("torch._utils", "_rebuild_tensor_v2", storage(count), *arguments)


def test_a_hand_made_archive_is_read(tmp_path: Path) -> None:
    program = rebuilt(4, 1, 2, 2)
    path = archive(tmp_path / "net", program, **{"0": struct.pack("<4f", 1, 2, 3, 4)})
    assert read_file(path).tolist() == [2.0, 4.0]


REFUSED: dict[str, tuple[bytes, str]] = {
    "beyond what is stored": (rebuilt(4, 1, 2, 3), "reaches beyond what is stored"),
    "before what is stored": (rebuilt(4, -1, 2, 1), "not non-negative integers"),
    "backwards": (rebuilt(4, 3, 2, -1), "not non-negative integers"),
    "vast": (rebuilt(4, 0, 2**61, 2**61), "reaches beyond what is stored"),
    "vaster": (rebuilt(4, 0, 2**70, 1), "not non-negative integers"),
    "another size": (rebuilt(10**9, 0, 2, 1), "has 16 bytes, not 1,000,000,000 values"),
    "a missing record": (storage(4, b"U\x011"), "There is no item named"),
    "another reference": (b"U\x04fileQ", "refers to something that is not a storage"),
    "a function": (named("os", "system", b"U\x04true"), "it names os.system"),
    "a builtin": (named("builtins", "eval", b"U\x011"), "it names builtins.eval"),
    "an attribute": (named("builtins", "getattr", b"U\x011", b"U\x011"), "it names builtins.getat"),
    "of torch": (named("torch", "load", b"U\x011"), "it names torch.load"),
    "by a path": (b"\x8c\x05torch\x8c\x0cnn.Module.to\x93", "it names torch.nn.Module.to"),
    "attributes of a function": (
        b"ctorch._utils\n_rebuild_tensor\n}U\x01aU\x01bsb",
        "it sets attributes of an object without any",
    ),
    "attributes of a class": (
        b"cargparse\nNamespace\nN}U\x0b__setitem__Ns\x86b",
        "it sets attributes of an object without any",
    ),
    "items of a list": (b"]K\x00K\x01s", "it sets items of something that is not a mapping"),
    "an old operation": (b"(U\x01aicollections\nOrderedDict\n", "KeyError"),
}


@pytest.mark.parametrize("case", REFUSED)
def test_what_cannot_be_is_refused(case: str, tmp_path: Path) -> None:
    program, message = REFUSED[case]
    path = archive(tmp_path / "net", program, **{"0": bytes(16)})
    with pytest.raises(WeightsError) as caught:
        read_file(path)
    assert message in str(caught.value)
    assert str(path) in str(caught.value)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"archive/byteorder": b"big"}, "its numbers are big-endian"),
        ({"other/data.pkl": b"\x80\x02N."}, "not one of torch.save"),
    ],
)
def test_other_archives_are_refused(change: dict[str, bytes], message: str, tmp_path: Path) -> None:
    path = archive(tmp_path / "net", b"}")
    with zipfile.ZipFile(path, "a") as file:
        for name, content in change.items():
            file.writestr(name, content)
    with pytest.raises(WeightsError, match=message):
        read_file(path)


def test_a_record_twice_is_refused(tmp_path: Path) -> None:
    path = archive(tmp_path / "net", rebuilt(4, 0, 4, 1), **{"0": bytes(16)})
    with zipfile.ZipFile(path, "a") as file, pytest.warns(UserWarning, match="Duplicate name"):
        file.writestr("archive/data/0", bytes(16))
    with pytest.raises(WeightsError, match="two records of the same name"):
        read_file(path)


def test_a_directory_of_very_many_records_is_refused(tmp_path: Path) -> None:
    path = archive(tmp_path / "net", rebuilt(4, 0, 4, 1), **{"0": bytes(16)})
    path.write_bytes(path.read_bytes() + torch_files.RECORD * (torch_files.MAX_RECORDS + 1))
    with pytest.raises(WeightsError, match="more than 100,000 records"):
        read_file(path)


def legacy(program: bytes, **storages: bytes) -> bytes:
    parts = [torch_files.MAGIC, torch_files.PROTOCOL, {"little_endian": True}]
    head = b"".join(pickle.dumps(part, 2) for part in parts) + b"\x80\x02" + program + b"."
    stored = [struct.pack("<q", len(content) // 4) + content for content in storages.values()]
    return head + pickle.dumps(list(storages), 2) + b"".join(stored)


def test_a_part_of_a_storage_is_read_from_where_it_begins(tmp_path: Path) -> None:
    """As before PyTorch 0.4: the last of six values is a key, an offset and a size."""
    part = storage(4, b"U\x01a").removesuffix(b"tQ") + b"U\x01b" + number(2) + number(2) + b"\x87tQ"
    arguments = number(0), number(2) + b"\x85", number(1) + b"\x85", b"\x89N"
    program = named("torch._utils", "_rebuild_tensor_v2", part, *arguments)
    (tmp_path / "net").write_bytes(legacy(program, a=struct.pack("<4f", 1, 2, 3, 4)))
    assert read_file(tmp_path / "net").tolist() == [3.0, 4.0]


@pytest.mark.parametrize("protocol", [2, 4, 5])
def test_a_plain_pickle_is_not_called_corrupt(protocol: int, tmp_path: Path) -> None:
    content = {"model": {"stem.conv1.weight": np.ones(3)}, "__author__": "detectron2"}
    for name, whole in (("3", pickle.dumps(content, protocol)), ("2", b"\x80\x02U\x01\xff.")):
        (tmp_path / name).write_bytes(whole)
        with pytest.raises(WeightsError) as caught:
            read_file(tmp_path / name)
        assert "it is a pickle, but not one of torch.save" in str(caught.value)
        assert "Download it again" not in str(caught.value)


def copies(count: int) -> bytes:
    text = b"X" + struct.pack("<I", 2**20) + b"a" * 2**20 + b"q\x00"
    return b"](" + text + named("_codecs", "encode", b"h\x00", b"X\x06\0\0\0latin1") * count + b"e"


def text(value: str) -> bytes:
    return b"X" + struct.pack("<I", len(value)) + value.encode()


def table(names: Iterable[str]) -> bytes:
    """Returns a dict, which is number 0 of the pickle, of one tensor under many names."""
    tensor = named("torch._utils", "_rebuild_meta_tensor_no_storage") + b"q\x010"
    return tensor + b"}q\x00(" + b"".join(text(name) + b"h\x01" for name in names) + b"u"


def networks(prefixes: Iterable[str]) -> bytes:
    stems = ("conv1.weight", "layer1.0.conv1.weight")
    return table(f"{prefix}{stem}" for prefix in prefixes for stem in stems)


BOMBS: dict[str, Callable[[], bytes]] = {
    "zeros": lambda: b"](" + named("builtins", "bytearray", number(10**9)) * 30 + b"e",
    "copies": lambda: copies(3_000),
    "uninitialized": lambda: named("torch", "Tensor", number(10**11)),
    "a far place": lambda: b"Nr\xff\xff\xff\x7f",
    "a long array": lambda: b"\x96" + struct.pack("<Q", 10**11),
    "a long text": lambda: b"\x8d" + struct.pack("<Q", 10**12),
    "a long frame": lambda: b"\x95" + struct.pack("<Q", 10**12) + b"N",
    "a deep key": lambda: b"}N" + b"\x85" * 100_000 + b"Ns",
    "a deep set": lambda: b"\x8f(N" + b"\x85" * 100_000 + b"\x90",
    "deep lists": lambda: b"]" * 100_000 + b"a" * 99_999,
    "vast storages": lambda: rebuilt(10**11, 0, 1, 1),
    "a table again and again": lambda: (
        b"](" + table(map(str, range(20_000))) + b"h\x00" * 100_000 + b"e"
    ),
    "a network again and again": lambda: b"](" + networks([""]) + b"h\x00" * 100_000 + b"e",
    "very many networks": lambda: networks(f"{number}." for number in range(40_000)),
    "a long queue": lambda: table(
        ["conv1.weight", "layer1.0.conv1.weight", "layer4.0.conv1.weight"]
        + [f"queue.{number}" for number in range(60_000)]
    ),
    "wrappers of wrappers": lambda: table(
        ["conv1.weight", "layer1.0.conv1.weight", "module." * 1_000_000]
    ),
    "a very long number": lambda: b"}\x8b" + struct.pack("<I", 2_000) + b"\x7f" * 2_000 + b"Ns",
}
PROGRAM = """
import sys
from pathlib import Path
from resnetkit.errors import WeightsError
from resnetkit.runtime.peak import peak_memory
from resnetkit.weights.load import load_network
for name in sys.argv[1:]:
    try:
        load_network(Path(name))
    except WeightsError:
        continue
    sys.exit(f"{name} is a network")
print(peak_memory())
"""


def shared(blocks: int) -> dict[str, torch.Tensor]:
    """Returns the tensors of a network that share numbers if they have the same shape."""
    architecture = Architecture("basic", (blocks, 1, 1, 1), (512,) * 4, "7x7", 224, False)
    with torch.device("meta"):
        state = architecture.with_options(num_classes=2).build().state_dict()
    kinds = {(value.shape, value.dtype) for value in state.values()}
    ones = {(shape, dtype): torch.ones(shape, dtype=dtype) for shape, dtype in kinds}
    return {name: ones[value.shape, value.dtype] for name, value in state.items()}


def test_no_file_fills_the_memory_or_ends_the_process(tmp_path: Path) -> None:
    paths = []
    for name, make in BOMBS.items():
        paths.append(archive(tmp_path / f"{name}.pth", make()))
        paths.append(tmp_path / f"{name}.legacy")
        paths[-1].write_bytes(legacy(make()))
    for zipped in (True, False):
        paths.append(tmp_path / f"shared {zipped}")
        torch.save(shared(200), paths[-1], _use_new_zipfile_serialization=zipped)

    def limited() -> None:
        resource.setrlimit(resource.RLIMIT_CPU, (60, 60))

    command = [sys.executable, "-c", PROGRAM, *map(str, paths)]
    done = subprocess.run(command, check=False, capture_output=True, preexec_fn=limited)
    assert done.returncode == 0, done.stderr.decode()
    assert int(done.stdout) < 1_500 * 2**20


def test_a_file_of_very_many_operations_is_stopped(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(torch_files, "MAX_READS", 10_000)
    paths = [archive(tmp_path / "net.pth", b"}" + b"N0" * 10_000), tmp_path / "net"]
    paths[1].write_bytes(legacy(b"}" + b"N0" * 10_000))
    for path in paths:
        with pytest.raises(WeightsError, match="takes too many operations to read"):
            read_file(path)


def test_a_legacy_file_with_another_count_is_refused(tmp_path: Path) -> None:
    stream = io.BytesIO()
    torch.save({"w": torch.ones(3)}, stream, _use_new_zipfile_serialization=False)
    content = bytearray(stream.getvalue())
    place = content.rindex(struct.pack("<q", 3))
    content[place : place + 8] = struct.pack("<q", 10**12)
    (tmp_path / "net").write_bytes(content)
    with pytest.raises(WeightsError, match="another size than its tensors require"):
        read_file(tmp_path / "net")
