"""Parsing of a whole DICOM file by pydicom, within limits: a complete data set, or the fault that says why not."""

import logging
import struct
import warnings
import zlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from io import BytesIO

from pydicom.datadict import keyword_for_tag
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.filereader import read_dataset
from pydicom.tag import BaseTag
from pydicom.uid import (
    UID,
    DeflatedExplicitVRLittleEndian,
    ExplicitVRBigEndian,
    ImplicitVRLittleEndian,
    MediaStorageDirectoryStorage,
)

from imaging.dicom.element_limits import check_element_limits
from imaging.dicom.elements import UNDEFINED, Buffer
from imaging.dicom.limits import LIMITS, check_limit
from imaging.errors import DataFault, RadloopError

MAGIC_AT = 128
META_GROUP = 0x0002
FIRST_GROUPS = (META_GROUP, 0x0008)
PIXEL_GROUP, PIXEL_ELEMENTS = 0x7FE0, frozenset({0x0008, 0x0009, 0x0010})
"""Float, Double Float and Pixel Data."""
FREE_RATIO_BYTES = 2**16
"""A shorter file may deflate by any ratio: a header of zeros does no harm."""
NO_LOG = logging.NullHandler()
CUT_SHORT = (EOFError, OSError, struct.error)
"""Exceptions of pydicom where the bytes end inside a sequence or the header of an element."""


@contextmanager
def reading(reason: str, what: str = "the data set") -> Iterator[None]:
    """Turn any exception of pydicom into DataFault `reason`, and drop its messages, warnings and log lines.

    They quote values, and a value may name a patient: only the class name of an exception is kept.
    """
    logger = logging.getLogger("pydicom")
    before = logger.handlers, logger.propagate
    # Not by its level: to set one clears the caches of all loggers of the process, and takes longer than a header.
    logger.handlers, logger.propagate = [NO_LOG], False
    try:
        with warnings.catch_warnings(action="ignore"):
            yield
    except RadloopError:
        raise
    except RecursionError:
        raise DataFault("too-deep", "sequences lie in one another beyond what can be followed") from None
    except MemoryError:
        raise DataFault("out-of-memory", f"{what} needs more than the limit") from None
    except Exception as error:
        raise DataFault(reason, f"{what} cannot be read ({type(error).__name__})") from None
    finally:
        logger.handlers, logger.propagate = before


def parse(data: Buffer) -> Dataset:
    """Return the data set of a whole DICOM file, with or without a preamble (PS3.10 section 7).

    Its `file_meta` always has a transfer syntax. Raises DataFault "not-dicom", "dicomdir", "truncated",
    "surplus-data", "unreadable", or the name of a limit.

    >>> parse(b"Dear colleague")
    Traceback (most recent call last):
    imaging.errors.DataFault: ('not-dicom', '')
    """
    start = _start(data)
    check_limit("too-large", "the size of the data set in bytes", len(data), LIMITS.parsed_bytes)
    stream = BytesIO(data)
    stream.seek(start)
    with reading("unreadable"):
        try:
            return _parse(stream)
        except CUT_SHORT:
            raise DataFault(
                "truncated", f"the data set ends inside an element, after {stream.tell()} bytes"
            ) from None


def _start(data: Buffer) -> int:
    """Return where the first element begins."""
    if data[MAGIC_AT : MAGIC_AT + 4] == b"DICM":
        return MAGIC_AT + 4
    if _begins_with_element(data):
        return 0
    raise DataFault("not-dicom")


def _begins_with_element(data: Buffer) -> bool:
    """Return whether the bytes look like a data set that lost its preamble."""
    if len(data) < MAGIC_AT:
        return False
    group, _, vr, length = struct.unpack_from("<HH2sH", data)
    explicit = vr.isalpha() and vr.isupper()
    implicit_length = int.from_bytes(data[4:8], "little")
    return group in FIRST_GROUPS and (length if explicit else implicit_length) < len(data)


def _parse(stream: BytesIO) -> Dataset:
    meta = FileMetaDataset(read_dataset(stream, False, True, stop_when=_refuse_overrun(stream, META_GROUP)))
    if meta.get("MediaStorageSOPClassUID") == MediaStorageDirectoryStorage:
        raise DataFault("dicomdir")
    # Without a syntax: given implicit, pydicom recognises explicit VR by itself.
    syntax = UID(meta.get("TransferSyntaxUID") or ImplicitVRLittleEndian)
    if syntax == DeflatedExplicitVRLittleEndian:
        stream = BytesIO(_inflate(stream.read()))
    implicit, little = syntax == ImplicitVRLittleEndian, syntax != ExplicitVRBigEndian
    check_element_limits(stream.getbuffer(), stream.tell(), implicit=implicit, little=little)
    dataset = read_dataset(stream, implicit, little, stop_when=_refuse_overrun(stream))
    if not len(dataset):
        # pydicom drops everything when the bytes end before the delimiter of a sequence.
        raise DataFault("truncated", "no element is complete")
    meta.TransferSyntaxUID = syntax
    dataset.file_meta = meta
    return dataset


def _refuse_overrun(stream: BytesIO, last_group: int = 0xFFFF) -> Callable[[BaseTag, str | None, int], bool]:
    """Return a `stop_when` for pydicom that raises "truncated", and "surplus-data" for what belongs before pixel data.

    By itself pydicom accepts a value that is cut short, elements out of order and two of one tag, of which the last
    counts. Readers that stop at the pixel data never see what is behind them.
    """
    size, pixels = stream.getbuffer().nbytes, list[BaseTag]()

    def stop(tag: BaseTag, vr: str | None, length: int) -> bool:
        group = tag.group
        if group > last_group:
            return True
        if group == PIXEL_GROUP and tag.element in PIXEL_ELEMENTS:
            pixels.append(tag)
            if len(pixels) > 1:
                # pydicom keeps the last of equal ones; PS3.3 C.7.6.3 allows one of the three kinds.
                raise DataFault("surplus-data", "the object has a second element of pixel data")
        elif pixels and 0 < tag < pixels[0]:  # zeros are padding to a block of some medium
            name = keyword_for_tag(tag) or "an element"  # a tag may be two letters of stray text
            raise DataFault("surplus-data", f"{name} is behind the pixel data, and belongs before them")
        left = size - stream.tell()
        if length != UNDEFINED and length > left:
            raise DataFault("truncated", f"{tag} has {length} bytes, {left} are left")
        return False

    return stop


def _inflate(data: bytes) -> bytes:
    """Return the data set of the deflated transfer syntax (PS3.5 A.5), within limits on size and ratio."""
    limit = min(LIMITS.inflated_bytes, max(len(data), FREE_RATIO_BYTES) * LIMITS.inflate_ratio)
    inflater = zlib.decompressobj(-zlib.MAX_WBITS)
    plain = inflater.decompress(data, limit)
    if inflater.unconsumed_tail:
        raise DataFault("inflate-bomb", f"{len(data)} deflated bytes become more than {limit}")
    if not inflater.eof:
        raise DataFault("truncated", f"the deflated data set ends after {len(data)} bytes")
    return plain
