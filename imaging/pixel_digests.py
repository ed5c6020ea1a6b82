"""Digests (BLAKE3) of files and of their pixels; the pixels of a native file are hashed only once for both."""

from collections.abc import Iterable
from typing import Any

import numpy as np
from blake3 import blake3
from numpy.typing import NDArray

Buffer = bytes | bytearray | memoryview


def pixel_digest(stored: NDArray[Any]) -> bytes:
    """Return the digest of decoded stored values: 32 bytes.

    Hashed are the type as numpy writes it ("<u2"), the shape ("(512, 512)") and the values, row by row and the least
    significant byte first: the same pixels have the same digest, however they are compressed.
    """
    kind = stored.dtype.newbyteorder("<")
    values = np.ascontiguousarray(stored, kind)
    return (
        blake3(f"{kind.str}{stored.shape}".encode()).update(values.reshape(-1).view(np.uint8).data).digest()
    )


def file_digest(data: Buffer) -> bytes:
    """Return the digest of the bytes of a file: 32 bytes."""
    return blake3(data).digest()


def native_file_digest(data: Buffer, start: int, length: int, pixels: bytes) -> bytes:
    """Return the digest of a file whose bytes from `start` on are `length` bytes of pixels of a known digest.

    Hashed are the bytes before the pixels, the digest of the pixels instead of these, the bytes behind them, and start
    and length as 8 bytes each, the least significant first. One bit changed anywhere changes it.
    """
    view = memoryview(data)
    digest = blake3(view[:start]).update(pixels).update(view[start + length :])
    return digest.update(start.to_bytes(8, "little") + length.to_bytes(8, "little")).digest()


def digest_of_all(digests: Iterable[bytes]) -> bytes:
    """Return the digest of digests in their order: of the files of a series, or of the slices of a volume."""
    return blake3(b"".join(digests)).digest()
