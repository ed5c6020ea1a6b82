"""Decoders of compressed frames: which one is used for a transfer syntax, and whether it is installed.

imagecodecs decodes grey frames, and RLE in colour; other frames, and those that it refuses, go to pydicom's plugins.
"""

import math
from collections.abc import Iterator, Mapping
from contextlib import suppress
from typing import Any

import imagecodecs
import numpy as np
from numpy.typing import NDArray
from pydicom._uid_dict import UID_dictionary
from pydicom.encaps import encapsulate
from pydicom.pixels.decoders.base import Decoder, get_decoder
from pydicom.uid import (
    HTJ2K,
    JPEG2000,
    UID,
    AllTransferSyntaxes,
    HTJ2KLossless,
    HTJ2KLosslessRPCL,
    JPEG2000Lossless,
    JPEGBaseline8Bit,
    JPEGExtended12Bit,
    JPEGLossless,
    JPEGLosslessSV1,
    JPEGLSLossless,
    JPEGLSNearLossless,
    RLELossless,
)

from imaging.dicom.codestream import (
    Size,
    codestream_size,
    has_another,
    has_end,
    rle_is_whole,
    rle_segments,
)
from imaging.dicom.elements import Buffer
from imaging.errors import DataFault, EnvironmentFault

FAST: Mapping[str, str] = {
    # libjpeg-turbo decodes lossless JPEG too: 2.4 ms a slice, against 3.3 and 4.4 of the special decoders.
    JPEGBaseline8Bit: "jpeg8",
    JPEGExtended12Bit: "jpeg8",
    JPEGLossless: "jpeg8",
    JPEGLosslessSV1: "jpeg8",
    JPEGLSLossless: "jpegls",
    JPEGLSNearLossless: "jpegls",
    JPEG2000Lossless: "jpeg2k",
    JPEG2000: "jpeg2k",
    HTJ2KLossless: "htj2k",
    HTJ2KLosslessRPCL: "htj2k",
    HTJ2K: "htj2k",
    RLELossless: "dicomrle",
}
"""Transfer syntax to imagecodecs' decoder of grey frames."""

PLUGIN = "pylibjpeg"
"""The plugin of pydicom that knows all syntaxes; it is named so that no other plugin changes a pixel."""
PLUGINS: Mapping[str, str] = {RLELossless: "pydicom"}
"""Exceptions: pylibjpeg's RLE decoder ends the whole process (a Rust panic) at some damaged frames."""


NEWER: Mapping[str, str] = {
    "1.2.840.10008.1.2.4.110": "JPEG XL Lossless",
    "1.2.840.10008.1.2.4.111": "JPEG XL JPEG Recompression",
    "1.2.840.10008.1.2.4.112": "JPEG XL",
    "1.2.840.10008.1.2.8.1": "Deflated Image Frame Compression",
}
"""Transfer syntaxes of PS3.6 table A-1 that pydicom's dictionary does not have."""


def syntax_name(syntax: str) -> str:
    """Return the name of a registered transfer syntax, also of a retired one; empty for any other value.

    >>> syntax_name("1.2.840.10008.1.2.4.55"), syntax_name("DOE^JANE")
    ('JPEG Full Progression, Non-Hierarchical (Process 10 and 12)', '')
    """
    name, kind, *_ = UID_dictionary.get(syntax, ("", ""))
    return name if kind == "Transfer Syntax" else NEWER.get(syntax, "")


def find_decoder(syntax: str) -> Decoder:
    """Return pydicom's decoder of a transfer syntax.

    Raises DataFault "undecodable" where no decoder exists (a video, a private syntax), and EnvironmentFault where
    one exists and is not installed.

    >>> find_decoder("1.2.840.10008.1.2.1").is_available
    True
    """
    name = syntax_name(syntax)
    if not name:
        # Not quoted, nor given to pydicom, which would quote it: a damaged file may have any value in its place.
        raise DataFault("undecodable", "no decoder exists for an unknown transfer syntax")
    transfer_syntax = UID(syntax)
    try:
        decoder = get_decoder(transfer_syntax)
    except NotImplementedError:
        raise DataFault("undecodable", f"no decoder exists for {name}") from None
    if not decoder.is_available:
        raise EnvironmentFault(
            f"no decoder is installed for {name} ({transfer_syntax}): "
            f"install one of {'; '.join(decoder.missing_dependencies)}"
        )
    return decoder


def check_decoders() -> None:
    """Raise EnvironmentFault that names every decoder which is not installed, before any file is read."""
    missing = list(_missing())
    if missing:
        lines = "\n".join(missing)
        raise EnvironmentFault(f"{lines}\n{len(missing)} in all: install radloop with all its dependencies")


def _missing() -> Iterator[str]:
    for syntax in AllTransferSyntaxes:
        try:
            find_decoder(syntax)
        except DataFault:
            continue  # none exists
        except EnvironmentFault as fault:
            yield str(fault)
    for name in sorted(set(FAST.values())):
        if name != "dicomrle" and not getattr(imagecodecs, name.upper()).available:
            yield f"imagecodecs is installed without its codec {name}"


def decode_fast(
    frame: Buffer, syntax: str, shape: tuple[int, int], samples: int, bits_allocated: int
) -> NDArray[Any] | None:
    """Return the samples of a grey frame (rows, columns), or of RLE in colour (rows, columns, 3).

    None where pydicom's plugins must try. The frame must have passed `check_codestream`: a decoder reserves memory
    for the size that a codestream claims.
    """
    name = FAST.get(syntax)
    if name is None:
        return None
    try:
        if name == "dicomrle":
            return _rle(frame, shape, samples, bits_allocated)
        samples_read = getattr(imagecodecs, f"{name}_decode")(frame)
    except Exception:  # each codec has exceptions of its own, and pydicom's plugins may still succeed
        return None
    return samples_read if samples_read.shape == shape and samples_read.dtype.kind in "ui" else None


def decode_by_plugin(frame: Buffer, syntax: str, options: Mapping[str, Any]) -> NDArray[Any]:
    """Return the samples of a frame, decoded by a plugin of pydicom; `options` are those of its decoders.

    The frame must have passed `check_codestream`. Raises DataFault "surplus-data", and whatever the plugin raises.
    """
    if syntax == RLELossless:
        # The fast decoder refuses what is more than the planes, pydicom's drops it.
        for segment in rle_segments(frame):
            with suppress(imagecodecs.PackbitsError):  # damaged, which is for the decoder to find
                check_plane(segment, options["rows"] * options["columns"])
    decoder = find_decoder(syntax)
    plugin = PLUGINS.get(syntax, PLUGIN)
    plugin = plugin if plugin in decoder.available_plugins else ""
    stored, _ = decoder.as_array(encapsulate([bytes(frame)]), index=0, decoding_plugin=plugin, **options)
    return np.asarray(stored)


def _rle(frame: Buffer, shape: tuple[int, int], samples: int, bits_allocated: int) -> NDArray[Any]:
    kind = np.dtype(f"<u{bits_allocated // 8}")
    # With the size given, it stops where a hostile frame would repeat bytes for ever.
    size = samples * math.prod(shape) * kind.itemsize
    plain = imagecodecs.dicomrle_decode(bytes(frame), kind, out=size)
    planes = np.frombuffer(plain, kind).reshape(samples, *shape)
    return planes[0] if samples == 1 else planes.transpose(1, 2, 0)


def check_plane(segment: Buffer, plane_bytes: int) -> None:
    """Raise DataFault "surplus-data" where a segment of RLE has more than a plane and the byte of an even length.

    Raises imagecodecs.PackbitsError where it ends inside a run.
    """
    try:
        imagecodecs.packbits_decode(bytes(segment), out=plane_bytes + 1)
    except imagecodecs.PackbitsError as error:
        if "TOO_SMALL" not in str(error):
            raise
        detail = f"a segment of an RLE frame has more than {plane_bytes} bytes"
        raise DataFault("surplus-data", detail) from None


def check_codestream(
    frame: Buffer, syntax: str, shape: tuple[int, int], samples: int, bits_allocated: int
) -> Size | None:
    """Return the size that a codestream claims, None of RLE.

    Raises DataFault "undecodable" where the size is not that of the header, "truncated" where the end is missing,
    "surplus-data" where another codestream follows the end.
    """
    if syntax == RLELossless:
        segments = samples * bits_allocated // 8
        if not rle_is_whole(frame, segments, segments * math.prod(shape)):
            raise DataFault(
                "undecodable", "the segments of an RLE frame are not those that the header asks for"
            )
        return None
    size = codestream_size(frame)
    if size is None:
        find_decoder(syntax)  # a missing decoder is the error to report first
        raise DataFault("undecodable", "the codestream does not tell its size")
    if (size.rows, size.columns, size.samples) != (*shape, samples):
        raise DataFault(
            "undecodable",
            f"the codestream has {size.rows} x {size.columns} pixels of {size.samples} samples, "
            f"the header says {shape[0]} x {shape[1]} of {samples}",
        )
    if size.bits > bits_allocated:
        raise DataFault(
            "undecodable", f"the codestream has {size.bits} bits a sample, BitsAllocated is {bits_allocated}"
        )
    if has_another(frame):
        raise DataFault("surplus-data", "another codestream follows the end of a frame")
    if not has_end(frame):
        raise DataFault("truncated", f"the codestream of {len(frame)} bytes has no end")
    if len(frame) * 8 < size.least_bits:
        raise DataFault("truncated", f"{len(frame)} bytes cannot be {size.rows} x {size.columns} pixels")
    return size
