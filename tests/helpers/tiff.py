"""Gray TIFFs as no library writes them, byte by byte."""

import struct

import numpy as np
import numpy.typing as npt

SIZE = (40, 24)
GRAY = np.arange(SIZE[0] * SIZE[1], dtype=np.uint32).reshape(SIZE[::-1]) * 255 // 959
WHITE_IS_ZERO = (262, 3, 1, bytes(4))


def tiff(values: npt.NDArray[np.uint8], *tags: tuple[int, int, int, bytes], bits: int = 8) -> bytes:
    """Returns a gray TIFF of 40 x 24 values with further tags: code, type, count and content."""
    width, height = SIZE
    entry = {256: width, 257: height, 258: bits, 259: 1, 262: 1, 273: 8, 277: 1, 278: height}
    entry[279] = values.size
    entries = [(code, 4, 1, struct.pack("<I", value)) for code, value in entry.items()]
    given = {tag[0] for tag in tags}
    entries = sorted([*(entry for entry in entries if entry[0] not in given), *tags])
    directory = b"".join(struct.pack("<HHI4s", *entry) for entry in entries)
    header = b"II*\0" + struct.pack("<I", 8 + values.size)
    return header + values.tobytes() + struct.pack("<H", len(entries)) + directory + bytes(4)


def in_12_bits(gray: npt.NDArray[np.uint32]) -> npt.NDArray[np.uint8]:
    """Returns gray values of 8 bits as packed values of 12 bits."""
    pairs = (gray * 4095 // 255).reshape(-1, 2)
    first, second = pairs[:, 0], pairs[:, 1]
    packed = np.stack([first >> 4, (first & 15) << 4 | second >> 8, second & 255], 1)
    return packed.astype(np.uint8)


def in_16_bits(gray: npt.NDArray[np.uint32]) -> npt.NDArray[np.uint8]:
    """Returns the bytes of gray values of 8 bits as values of 16 bits."""
    return (gray * 257).astype("<u2").view(np.uint8)
