"""Files of more than 8 bits, which Pillow reads and does not write."""

import struct
import zlib

import numpy as np


def png(values: np.ndarray) -> bytes:
    """16 bits (h w c) of grey and alpha, RGB, or RGB and alpha."""

    def chunk(name: bytes, content: bytes) -> bytes:
        return struct.pack(">I", len(content)) + name + content + struct.pack(">I", zlib.crc32(name + content))

    height, width, bands = values.shape
    header = struct.pack(">IIBBBBB", width, height, 16, {2: 4, 3: 2, 4: 6}[bands], 0, 0, 0)
    rows = b"".join(b"\0" + row.astype(">u2").tobytes() for row in values)
    parts = (chunk(b"IHDR", header), chunk(b"IDAT", zlib.compress(rows)), chunk(b"IEND", b""))
    return b"\x89PNG\r\n\x1a\n" + b"".join(parts)


def tiff(values: np.ndarray, photometric: int | None, bits: int = 16, planar: bool = False) -> bytes:
    """Whole numbers (h w c) as they are: 0 stands for white where ``photometric`` is 0, which None leaves out."""
    height, width, bands = values.shape
    content = _packed(values) if bits == 12 else values.transpose(2, 0, 1) if planar else values
    content = content if isinstance(content, bytes) else content.astype(f"<u{bits // 8}").tobytes()
    plane = len(content) // bands if planar else len(content)
    strips = [8 + start for start in range(0, len(content), plane)]
    tags: dict[int, tuple[str, list[int]]] = {
        256: ("H", [width]),
        257: ("H", [height]),
        258: ("H", [bits] * bands),
        259: ("H", [1]),
        262: ("H", [] if photometric is None else [photometric]),
        273: ("I", strips),
        277: ("H", [bands]),
        278: ("H", [height]),
        279: ("I", [plane] * len(strips)),
        284: ("H", [2 if planar else 1]),
    }
    given = {tag: value for tag, value in tags.items() if value[1]}
    begin = 8 + len(content)  # of the list of tags; values that take more than 4 bytes lie behind it
    entries, behind = struct.pack("<H", len(given)), b""
    for tag, (kind, numbers) in given.items():
        value = struct.pack(f"<{len(numbers)}{kind}", *numbers)
        entries += struct.pack("<HHI", tag, {"H": 3, "I": 4}[kind], len(numbers))
        if len(value) > 4:
            entries += struct.pack("<I", begin + 2 + 12 * len(given) + 4 + len(behind))
            behind += value
        else:
            entries += value.ljust(4, b"\0")
    return struct.pack("<4sI", b"II*\0", begin) + content + entries + bytes(4) + behind


def _packed(values: np.ndarray) -> bytes:
    """12 bits each, the highest first, every row from a new byte."""
    rows = ("".join(f"{value:012b}" for value in row.ravel().tolist()) for row in values)
    return b"".join(int(row + "0" * (-len(row) % 8), 2).to_bytes((len(row) + 7) // 8, "big") for row in rows)
