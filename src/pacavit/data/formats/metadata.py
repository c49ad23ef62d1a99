"""Image files without metadata.

Pillow refuses PNG files whose compressed texts or color profiles are large, and JPEG files with
malformed application segments, although every pixel can be read. It has no option to ignore them.

Sources: https://www.w3.org/TR/png-3/ (chunks), ITU-T T.81, B.1 (JPEG's marker segments).
"""

from __future__ import annotations

import os
import struct
from io import BytesIO
from typing import IO

from PIL import Image

__all__ = ["without_metadata"]

_PNG, _JPEG = b"\x89PNG\r\n\x1a\n", b"\xff\xd8"

# Besides the critical chunks: transparency and the frames of animations.
_PIXEL_CHUNKS = (b"tRNS", b"acTL", b"fcTL", b"fdAT")
_CHUNKS_WITH_ORIENTATION = (b"eXIf", b"tEXt", b"zTXt", b"iTXt")
_TEXTS_WITH_ORIENTATION = (b"XML:com.adobe.xmp\0", b"Raw profile type exif\0")

_COMMENT, _JFIF, _EXIF, _ADOBE, _START_OF_SCAN = 0xFE, 0xE0, 0xE1, 0xEE, 0xDA
_APPLICATION = range(0xE0, 0xF0)
_WITHOUT_LENGTH = (0x01, *range(0xD0, 0xD8))
_EXIF_OR_XMP = (b"Exif\0\0", b"http://ns.adobe.com/xap/1.0/\0")

_MAX_BYTES_PER_PIXEL = 16  # twice 16-bit RGBA: compression may enlarge the data
_OTHER_BYTES = 2**20


def without_metadata(stream: IO[bytes], *, keep_orientation: bool, max_pixels: int) -> bytes | None:
    """A PNG or JPEG file reduced to the parts that its pixels depend on.

    Args:
        stream: the file; it is read from its beginning.
        keep_orientation: keep metadata with the orientation if they can be parsed.
        max_pixels: files with more bytes than this many pixels can take are refused.

    Returns:
        The bytes of the file; None if it has another format, is malformed, or is too large.

    Raises:
        OSError: the system failed to read the file.
    """
    stream.seek(0)
    start = stream.read(len(_PNG))
    limit = max_pixels * _MAX_BYTES_PER_PIXEL + _OTHER_BYTES
    if start == _PNG:
        return _pixels_of_png(stream, keep_orientation, limit)
    if start.startswith(_JPEG):
        stream.seek(len(_JPEG))
        return _pixels_of_jpeg(stream, keep_orientation, limit)
    return None


def _pixels_of_png(stream: IO[bytes], keep_orientation: bool, limit: int) -> bytes | None:
    """A PNG file without metadata. It is a sequence of chunks: length, kind, data, checksum."""
    parts, header = [_PNG], b""
    while len(head := stream.read(8)) == 8:
        length, kind = struct.unpack(">I4s", head)
        critical = not kind[0] & 0x20
        needed = critical or kind in _PIXEL_CHUNKS
        if not needed and not (keep_orientation and kind in _CHUNKS_WITH_ORIENTATION):
            stream.seek(length + 4, os.SEEK_CUR)
            continue
        if length > limit:
            return None
        chunk = head + stream.read(length + 4)
        if kind == b"IHDR":
            header = chunk
        if needed or _gives_orientation(header, chunk):
            parts.append(chunk)
            limit -= length
        if kind == b"IEND":
            break
    return b"".join(parts)


def _gives_orientation(header: bytes, chunk: bytes) -> bool:
    """Whether a PNG chunk may hold the orientation, and Pillow can read it."""
    kind, data = chunk[4:8], chunk[8:]
    if kind != b"eXIf" and not data.startswith(_TEXTS_WITH_ORIENTATION):
        return False
    try:
        # Pillow reads a file up to its first pixels when it opens it.
        with Image.open(BytesIO(_PNG + header + chunk + b"\0\0\0\0IDAT"), formats=("PNG",)):
            return True
    except Exception:
        return False


def _pixels_of_jpeg(stream: IO[bytes], keep_orientation: bool, limit: int) -> bytes | None:
    """A JPEG file without metadata: segments (marker, length, data), then the coded pixels."""
    parts = [_JPEG]
    while True:
        marker = stream.read(2)
        while marker == b"\xff\xff":  # fill bytes
            marker = b"\xff" + stream.read(1)
        if len(marker) < 2 or marker[0] != 0xFF:
            return None
        if marker[1] == _START_OF_SCAN:
            rest = stream.read(limit + 1)
            return None if len(rest) > limit else b"".join([*parts, marker, rest])
        if marker[1] in _WITHOUT_LENGTH:
            parts.append(marker)
            continue
        length = stream.read(2)
        if len(length) < 2:
            return None
        data = stream.read(max(0, int.from_bytes(length, "big") - 2))
        if _is_needed(marker[1], data, keep_orientation):
            parts.append(marker + length + data)
            limit -= len(data)


def _is_needed(marker: int, data: bytes, keep_orientation: bool) -> bool:
    """Whether the pixels of a JPEG file depend on a segment."""
    if marker == _JFIF:  # with Adobe's it gives the color space; decoders ignore shorter ones
        return data.startswith(b"JFIF\0") and len(data) >= 14
    if marker == _ADOBE:
        return data.startswith(b"Adobe") and len(data) >= 12
    if marker == _EXIF:
        return keep_orientation and data.startswith(_EXIF_OR_XMP)
    return marker != _COMMENT and marker not in _APPLICATION
