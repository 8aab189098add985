"""Reads files of torch.save as data: nothing that they name is called, and every size is checked.

A file is a pickle, which is a small program, together with the bytes of tensors: in an archive, or
after the pickle in the format before PyTorch 1.6. Here the program may make mappings, lists,
numbers, strings and tensors. Other names are replaced by an inert object if they are known to be
unnecessary, and refused otherwise. torch.load(weights_only=True) executes no code either, but it
makes calls that can exhaust the memory.
"""

import math
import pickle
import struct
import zipfile
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from io import BytesIO
from typing import Any, ClassVar

import torch
from torch import Tensor

__all__ = ["LONGEST_KEY", "Array", "Quantized", "is_torch_file", "read_torch_file"]

MAX_RECORDS = 100_000  # of an archive; a checkpoint with optimizer states has some thousand
RECORD = b"PK\x01\x02"  # begins an entry of an archive's directory
MAX_READS = (
    5_000_000  # of the pickle, two an operation; that of a ResNet-152 with Adam takes 200,000
)
MAX_PICKLE = 2**30  # bytes; arrays of NumPy lie in it, of a ResNet-152 some 350 MB

MAGIC, PROTOCOL = 0x1950A86A20F9469CFC6C, 1001  # of the older format
MAGIC_BYTES = MAGIC.to_bytes(10, "little")
MAGIC_WITHIN = 32  # first bytes of a file


class Inert:
    """Replaces an object of a checkpoint that is not needed; it stores nothing."""

    def __new__(cls, *_: object, **__: object) -> "Inert":
        return object.__new__(cls)

    def __setitem__(self, key: object, value: object) -> None:
        """Discards an item."""

    def append(self, value: object) -> None:
        """Discards an item."""

    def extend(self, values: object) -> None:
        """Discards items."""


class Items(dict[Any, Any]):
    """An OrderedDict that ignores the arguments of its call."""

    def __init__(self, *_: object) -> None:
        super().__init__()


class ArrayType:
    """A dtype of NumPy.

    Args:
        code: code of the dtype, such as f4.
    """

    def __init__(self, code: object = None, *_: object) -> None:
        self.code = code if isinstance(code, str) else "unknown"
        self.order = "<"

    def set_state(self, state: object) -> None:
        """Sets the byte order."""
        if isinstance(state, tuple) and len(state) > 1 and isinstance(state[1], str):
            self.order = state[1]

    def kind(self) -> torch.dtype:
        """Returns the dtype of tensors.

        Raises:
            ValueError: if there is no equivalent.
        """
        if self.code.lstrip("<|=") not in ARRAY_TYPES or self.order not in "<|=":
            raise ValueError("an array of NumPy does not hold plain numbers")
        return ARRAY_TYPES[self.code.lstrip("<|=")]


ARRAY_TYPES = {
    **{"f2": torch.float16, "f4": torch.float32, "f8": torch.float64},
    **{"i8": torch.int64, "i4": torch.int32, "u1": torch.uint8, "b1": torch.bool},
}


class Encoded:
    """Bytes that a pickle writes as a string (_codecs.encode), decoded when they are needed."""

    def __init__(self, text: object = None, *_: object) -> None:
        self.text = text

    def content(self) -> bytes:
        """Returns the bytes."""
        return self.text.encode("latin-1") if isinstance(self.text, str) else b""


class Array:
    """An array of NumPy (numpy._core.multiarray._reconstruct), read without NumPy."""

    def __init__(self, *_: object) -> None:
        self.state: tuple[object, ...] = ()

    def set_state(self, state: object) -> None:
        """Sets version, shape, dtype, order of dimensions and bytes."""
        self.state = state if isinstance(state, tuple) else ()

    def tensor(self, most_bytes: int) -> Tensor:
        """Returns the values of the array.

        Args:
            most_bytes: limit of its size; several arrays may refer to the same bytes.

        Raises:
            ValueError: if they are not plain numbers, do not fit the shape, or are too many.
        """
        if len(self.state) != 5 or not isinstance(self.state[2], ArrayType):
            raise ValueError("an array of NumPy has no shape, dtype or values")
        _, shape, kind, is_fortran, content = self.state
        assert isinstance(kind, ArrayType)
        sizes, dtype = integers(shape), kind.kind()
        if math.prod(sizes) * dtype.itemsize > most_bytes:
            raise ValueError("an array of NumPy is larger than the file")
        stored = content.content() if isinstance(content, Encoded) else content
        if not isinstance(stored, bytes | bytearray):
            raise ValueError("an array of NumPy does not hold plain numbers")
        values = storage_of(bytes(stored), dtype, math.prod(sizes)).values
        if is_fortran:
            return values.reshape(sizes[::-1]).permute(*reversed(range(len(sizes))))
        return values.reshape(sizes)


def array_of_buffer(content: object, kind: object, shape: object, order: object) -> Array:
    """Returns an array of a pickle by protocol 5 (numpy._core.numeric._frombuffer)."""
    array = Array()
    array.set_state((1, shape, kind, order == "F", content))
    return array


@dataclass(frozen=True, eq=False)
class Storage:
    """The storage of one or more tensors.

    Attributes:
        values: its values, (N,).
    """

    values: Tensor


def tensor(storage: object, offset: object, size: object, stride: object, *_: object) -> Tensor:
    """Returns a view of stored values (torch._utils._rebuild_tensor_v2).

    Raises:
        ValueError: if it exceeds them.
    """
    sizes, strides = integers(size), integers(stride)
    (start,) = integers((offset,))
    if not isinstance(storage, Storage) or len(sizes) != len(strides):
        raise ValueError("a tensor is not made of a storage, sizes and strides")
    last = sum((count - 1) * step for count, step in zip(sizes, strides, strict=True))
    if 0 not in sizes and start + last >= len(storage.values):
        raise ValueError("a tensor reaches beyond what is stored of it")
    values = storage.values
    return values.as_strided(sizes, strides, values.storage_offset() + start)


def tensor_of_bytes(
    storage: object, offset: object, size: object, stride: object, _: object, __: object, *kind: Any
) -> Tensor:
    """Returns a view of a storage as another dtype (torch._utils._rebuild_tensor_v3)."""
    if not isinstance(storage, Storage) or not isinstance(kind[0], torch.dtype):
        raise ValueError("a tensor is not made of a storage and a type")
    return tensor(Storage(storage.values.view(kind[0])), offset, size, stride)


def first(value: object, *_: object) -> object:
    """Returns the tensor of a parameter (torch._utils._rebuild_parameter)."""
    return value


def remade(make: Callable[..., object], _: object, arguments: Sequence[object], *__: object) -> Any:
    """Returns a tensor without its attributes (torch._tensor._rebuild_from_type_v2)."""
    if make not in (tensor, tensor_of_bytes, first):
        raise ValueError("a tensor is not made of a storage")
    return make(*arguments)


def special(*_: object) -> Tensor:
    """Returns a tensor without values in place of one that is not dense."""
    return torch.empty(0, device="meta")


def sparse(*_: object) -> Tensor:
    """Returns a sparse tensor without values."""
    return torch.empty((0,), device="meta", layout=torch.sparse_coo)


class Quantized(Tensor):
    """A tensor without values in place of a quantized tensor, which torch builds with a warning."""


def quantized(*_: object) -> Tensor:
    """Returns the replacement of a quantized tensor."""
    return torch.empty(0, device="meta").as_subclass(Quantized)


def integers(values: object) -> tuple[int, ...]:
    """Returns sizes, strides or offsets.

    Raises:
        ValueError: if the values are not non-negative integers.
    """
    if not isinstance(values, tuple | list) or not all(
        type(value) is int and 0 <= value < 2**62 for value in values
    ):
        raise ValueError("the sizes of a tensor are not non-negative integers")
    return tuple(values)


KINDS = {
    "Float": torch.float32,
    "Double": torch.float64,
    "Half": torch.float16,
    "BFloat16": torch.bfloat16,
    "Long": torch.int64,
    "Int": torch.int32,
    "Short": torch.int16,
    "Char": torch.int8,
    "Byte": torch.uint8,
    "Bool": torch.bool,
    "ComplexFloat": torch.complex64,
    "ComplexDouble": torch.complex128,
    "Untyped": torch.uint8,
    "QInt8": torch.int8,
    "QUInt8": torch.uint8,
    "QInt32": torch.int32,
}
"""Dtypes of torch's storage classes."""

CALLED: dict[tuple[str, str], Any] = {
    ("collections", "OrderedDict"): Items,
    ("torch._utils", "_rebuild_tensor"): tensor,
    ("torch._utils", "_rebuild_tensor_v2"): tensor,
    ("torch._utils", "_rebuild_tensor_v3"): tensor_of_bytes,
    ("torch._utils", "_rebuild_parameter"): first,
    ("torch._utils", "_rebuild_parameter_with_state"): first,
    ("torch._tensor", "_rebuild_from_type_v2"): remade,
    ("torch.nn.parameter", "Parameter"): first,
    ("torch.nn.parameter", "Buffer"): first,
    ("torch._utils", "_rebuild_sparse_tensor"): sparse,
    ("torch._utils", "_rebuild_sparse_csr_tensor"): sparse,
    ("torch._utils", "_rebuild_qtensor"): quantized,
    ("torch._utils", "_rebuild_meta_tensor_no_storage"): special,
    ("torch._utils", "_rebuild_nested_tensor"): special,
    ("_codecs", "encode"): Encoded,
    ("numpy", "dtype"): ArrayType,
    ("numpy.core.multiarray", "_reconstruct"): Array,
    ("numpy._core.multiarray", "_reconstruct"): Array,
    ("numpy.core.numeric", "_frombuffer"): array_of_buffer,
    ("numpy._core.numeric", "_frombuffer"): array_of_buffer,
}

UNNEEDED = {
    "argparse": ("Namespace",),
    "types": ("SimpleNamespace",),
    "pathlib": ("Path", "PosixPath", "WindowsPath", "PurePosixPath", "PureWindowsPath"),
    "pathlib._local": ("Path", "PosixPath", "WindowsPath", "PurePosixPath", "PureWindowsPath"),
    "datetime": ("date", "datetime", "timedelta", "timezone"),
    "uuid": ("UUID",),
    "collections": ("Counter", "defaultdict", "deque"),
    "decimal": ("Decimal",),
    "fractions": ("Fraction",),
    "builtins": (
        *("Ellipsis", "NotImplemented", "bool", "bytearray", "complex", "dict", "float"),
        *("frozenset", "int", "list", "object", "range", "set", "slice", "str", "tuple"),
    ),
    "__builtin__": (
        *("Ellipsis", "NotImplemented", "bytearray", "complex", "dict", "frozenset"),
        *("list", "long", "object", "set", "slice", "xrange"),
    ),
    "numpy": ("ndarray", "float16", "float32", "float64", "int32", "int64", "bool_"),
    "numpy.core.multiarray": ("scalar",),
    "numpy._core.multiarray": ("scalar",),
    "numpy.random._pickle": ("__bit_generator_ctor", "__generator_ctor", "__randomstate_ctor"),
    "numpy.random._pcg64": ("PCG64", "PCG64DXSM"),
    "numpy.random._mt19937": ("MT19937",),
    "numpy.random._philox": ("Philox",),
    "numpy.random._sfc64": ("SFC64",),
    "numpy.random.bit_generator": ("SeedSequence", "__pyx_unpickle_SeedSequence"),
    "torch": (
        *("Size", "device", "Tensor", "Generator", "memory_format", "layout"),
        *("per_tensor_affine", "per_channel_affine", "per_tensor_symmetric"),
    ),
    "torch.serialization": ("_get_layout",),
    "torch.torch_version": ("TorchVersion",),
}
"""What checkpoints hold besides tensors: command line options, paths, times, best results."""


def replacement(module: str, name: str) -> Any:
    """Returns the replacement of a class or function that a file names.

    Raises:
        UnpicklingError: if there is none, as for a function that runs code.
    """
    if (module, name) in CALLED:
        return CALLED[module, name]
    if name in UNNEEDED.get(module, ()):
        return Inert
    is_storage = module in ("torch", "torch.cuda", "torch.storage") and name.endswith("Storage")
    if is_storage and name.removesuffix("Storage") in KINDS:
        return KINDS[name.removesuffix("Storage")]
    if module == "torch" and isinstance(kind := getattr(torch, name, None), torch.dtype):
        return kind
    raise pickle.UnpicklingError(f"it names {module[:50]}.{name[:50]}")


LONGEST_KEY = 1_000  # characters; names of tensors have about 50
LARGEST_KEY = 2**64  # of numbers, whose digits are part of messages


def is_plain_key(key: object) -> bool:
    """Returns whether a key of a mapping is a short text or a number."""
    if isinstance(key, str | bytes):
        return len(key) <= LONGEST_KEY
    return isinstance(key, float | None) or (isinstance(key, int) and abs(key) <= LARGEST_KEY)


PYTHON_UNPICKLER: Any = pickle._Unpickler  # the one in C allocates what a file claims

OPERATIONS = {
    code: method
    for code, method in PYTHON_UNPICKLER.dispatch.items()
    if bytes([code])
    not in {
        *(pickle.BYTEARRAY8, pickle.NEXT_BUFFER, pickle.READONLY_BUFFER),
        *(pickle.EXT1, pickle.EXT2, pickle.EXT4, pickle.PERSID, pickle.INST, pickle.OBJ),
    }
}
"""Allowed operations of a pickle; others are not needed, and some allocate what a file claims."""


class Reader(PYTHON_UNPICKLER):  # type: ignore[misc]  # it has no types
    """Reads one pickle.

    Args:
        file: content, with a limited number of reads.
        stored: maps the description of a storage to the storage.
    """

    def __init__(self, file: BytesIO, stored: Callable[[tuple[Any, ...]], object]) -> None:
        super().__init__(file, encoding="utf-8")
        self.stored = stored

    def find_class(self, module: str, name: str) -> Any:
        """Returns the replacement of a class or function that the file names."""
        return replacement(module, name)

    def persistent_load(self, pid: object) -> object:
        """Returns a storage."""
        if not isinstance(pid, tuple) or len(pid) not in (5, 6) or pid[0] != "storage":
            raise pickle.UnpicklingError("it refers to something that is not a storage")
        return self.stored(pid)

    def load_build(self) -> None:
        """Sets the state of arrays, discards that of inert objects, and refuses any other."""
        state = self.stack.pop()
        if isinstance(self.stack[-1], Array | ArrayType):
            self.stack[-1].set_state(state)
        elif not isinstance(self.stack[-1], Inert | Items):
            raise pickle.UnpicklingError("it sets attributes of an object without any")

    def load_setitem(self) -> None:
        """Sets an item."""
        value, key = self.stack.pop(), self.stack.pop()
        set_items(self.stack[-1], [key, value])

    def load_setitems(self) -> None:
        """Sets items."""
        items = self.pop_mark()
        set_items(self.stack[-1], items)

    def load_empty_set(self) -> None:
        """Replaces a set by an inert object."""
        self.append(Inert())

    def load_frozenset(self) -> None:
        """Replaces a set by an inert object."""
        self.pop_mark()
        self.append(Inert())

    def load_additems(self) -> None:
        """Discards the items of a set."""
        self.pop_mark()

    def load_frame(self) -> None:
        """Skips the length of a frame, which would be read at once, whatever its length."""
        self.read(8)

    dispatch: ClassVar[dict[int, Any]] = {
        **OPERATIONS,
        pickle.BUILD[0]: load_build,
        pickle.SETITEM[0]: load_setitem,
        pickle.SETITEMS[0]: load_setitems,
        pickle.EMPTY_SET[0]: load_empty_set,
        pickle.FROZENSET[0]: load_frozenset,
        pickle.ADDITEMS[0]: load_additems,
        pickle.FRAME[0]: load_frame,
    }


def set_items(target: object, items: Sequence[object]) -> None:
    """Sets items of a mapping, keys and values in turn.

    Keys other than numbers and short strings are discarded: hashing deeply nested tuples would
    exhaust the stack of Python, and joining long names the memory.
    """
    if not isinstance(target, dict | Inert) or len(items) % 2:
        raise pickle.UnpicklingError("it sets items of something that is not a mapping")
    for key, value in zip(items[::2], items[1::2], strict=True):
        if is_plain_key(key):
            target[key] = value


class Bounded(BytesIO):
    """The content of a file, with a limited number of reads."""

    reads = 0

    def read(self, size: int | None = -1, /) -> bytes:
        """Returns the next bytes.

        Raises:
            ValueError: after too many reads, as of a file that is made to take long.
        """
        self.reads += 1
        if self.reads > MAX_READS:
            raise ValueError("it takes too many operations to read")
        return super().read(size)

    def readline(self, size: int | None = -1, /) -> bytes:
        """Returns the bytes up to the end of a line."""
        self.reads += 1
        return super().readline(size)


def is_torch_file(beginning: bytes) -> bool:
    """Returns whether a file begins as files of torch.save do, in either format."""
    return beginning.startswith((b"PK\x03\x04", b"\x80"))


def read_torch_file(content: bytes) -> Any:
    """Returns the content of a file of torch.save: tensors, numbers and strings in containers.

    Raises:
        UnpicklingError: if it holds anything else.
        ValueError: if it is corrupt; or what pickle, zipfile and torch raise then.
    """
    if content.startswith(b"PK"):
        return read_archive(content)
    return read_legacy(content)


def read_archive(content: bytes) -> Any:
    """Returns the content of an archive."""
    if content.count(RECORD) > MAX_RECORDS:  # each becomes an object of zipfile
        raise ValueError(f"it has more than {MAX_RECORDS:,} records")
    with zipfile.ZipFile(BytesIO(content)) as archive:
        check_archive(archive, len(content))
        names = [name for name in archive.namelist() if name.endswith("/data.pkl")]
        if len(names) != 1:
            raise pickle.UnpicklingError("it is an archive, but not one of torch.save")
        root = names[0].removesuffix("data.pkl")
        order = f"{root}byteorder"
        if order in archive.namelist() and archive.read(order) != b"little":
            raise ValueError("its numbers are big-endian")
        if archive.getinfo(names[0]).file_size > MAX_PICKLE:
            raise ValueError("its pickle is larger than that of any checkpoint")
        storages: dict[str, Storage] = {}

        def stored(pid: tuple[Any, ...]) -> Storage:
            _, kind, key, _, count = pid[:5]
            if key not in storages:
                storages[key] = storage_of(archive.read(f"{root}data/{key}"), kind, count)
            return storages[key]

        return Reader(Bounded(archive.read(names[0])), stored).load()


def check_archive(archive: zipfile.ZipFile, count: int) -> None:
    """Checks the records of an archive, and their checksums.

    Args:
        archive: archive of torch.save.
        count: size of the archive in bytes.

    Raises:
        ValueError: if a record is compressed, so that a small file could exhaust the memory,
            overlaps another record, or does not match its checksum.
    """
    records = archive.infolist()
    if len(records) > MAX_RECORDS:
        raise ValueError(f"it has {len(records):,} records")
    if len({record.filename for record in records}) < len(records):
        raise ValueError("it has two records of the same name")
    for record in records:
        if record.compress_type != zipfile.ZIP_STORED or record.flag_bits & 1:
            raise ValueError("a record is compressed or encrypted, as torch never writes one")
        if record.file_size != record.compress_size:
            raise ValueError("a record claims another size than it has")
    if sum(record.file_size for record in records) > count:
        raise ValueError("its records overlap")
    corrupt = archive.testzip()
    if corrupt is not None:
        raise ValueError(f"the record '{corrupt[:100]}' does not match its checksum")


def storage_of(content: bytes, kind: object, count: object) -> Storage:
    """Returns a storage.

    Raises:
        ValueError: if its size is not the one that the file states.
    """
    if not isinstance(kind, torch.dtype) or type(count) is not int:
        raise ValueError("a storage has no dtype or no size")
    if len(content) != count * kind.itemsize:
        raise ValueError(f"a storage has {len(content):,} bytes, not {count:,} values")
    if not content:
        return Storage(torch.empty(0, dtype=kind))
    return Storage(torch.frombuffer(bytearray(content), dtype=kind))


def read_legacy(content: bytes) -> Any:
    """Returns the content of a file in the format before PyTorch 1.6.

    Magic number, protocol, information on the machine and the object are pickles. They are followed
    by a pickle of the keys of storages, and by the size and the values of each storage.
    """
    file = Bounded(content)
    if MAGIC_BYTES not in content[:MAGIC_WITHIN] or read_one(file) != MAGIC:
        raise pickle.UnpicklingError("it is a pickle, but not one of torch.save")
    if read_one(file) != PROTOCOL:
        raise ValueError("it is of an unknown version of torch.save")
    read_one(file)
    begin = file.tell()
    kinds: dict[object, tuple[object, object]] = {}

    def listed(pid: tuple[Any, ...]) -> Storage:
        kinds[str(pid[2])] = pid[1], pid[4]
        return Storage(torch.empty(0, device="meta"))

    StorageLister(file, listed).load()
    storages = dict(legacy_storages(file, kinds))

    def stored(pid: tuple[Any, ...]) -> Storage:
        storage = storages[str(pid[2])]
        if len(pid) == 5 or pid[5] is None:
            return storage
        _, offset, size = pid[5]  # of a part of the storage: before PyTorch 0.4
        start, count = integers((offset, size))
        return Storage(storage.values[start : start + count])

    file.seek(begin)
    return Reader(file, stored).load()


class StorageLister(Reader):
    """Reads a pickle only to list the storages it refers to, and to find its end."""

    def find_class(self, module: str, name: str) -> Any:
        """Returns a dtype, or the inert object."""
        value = replacement(module, name)
        return value if isinstance(value, torch.dtype) else Inert


def read_one(file: BytesIO) -> object:
    """Returns a pickle without storages."""
    return Reader(file, refuse_storage).load()


def refuse_storage(_: object) -> object:
    """Raises UnpicklingError for an unexpected storage."""
    raise pickle.UnpicklingError("it refers to a storage in an unexpected place")


def legacy_storages(
    file: BytesIO, kinds: dict[object, tuple[object, object]]
) -> Iterator[tuple[str, Storage]]:
    """Yields key and values of each storage that follows the pickles.

    Raises:
        ValueError: if one is not as the pickle describes it.
    """
    keys = read_one(file)
    if not isinstance(keys, list) or len(keys) > MAX_RECORDS:
        raise ValueError("it has no list of storages")
    for key in keys:
        kind, count = kinds[str(key)]
        (size,) = struct.unpack("<q", file.read(8))
        if size != count or not isinstance(kind, torch.dtype) or size < 0:
            raise ValueError("a storage has another size than its tensors require")
        yield str(key), storage_of(file.read(size * kind.itemsize), kind, count)
