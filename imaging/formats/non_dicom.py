"""Reading of formats without a DICOM header: the bytes of a payload, its patient, and one kind of failure."""

from collections.abc import Iterator
from contextlib import contextmanager

import numpy as np

from imaging.dicom.limits import LIMITS
from imaging.errors import DataFault, RadloopError
from imaging.file_io import FileBuffer
from imaging.formats.grey_levels import full_range
from imaging.image.image import Image
from imaging.image.instance import Instance
from imaging.pixel_digests import file_digest, pixel_digest
from imaging.sources.protocol import Payload

SIXTEEN_BITS = full_range(np.dtype(np.uint16), 16)
DARK = 4095
"""The largest value of 12 bits: a picture of 16 bits without a larger one is nearly black from 0 to 65535."""


def content_of(payload: Payload) -> bytes | memoryview:
    """Return the bytes of the one file of a payload; a large file of this machine is mapped, not read."""
    (content,) = payload.contents
    return FileBuffer().load(content, LIMITS.file_bytes)


def instances(
    payload: Payload,
    data: bytes | memoryview,
    modality: str,
    images: Iterator[Image],
    count: int,
    findings: tuple[str, ...] = (),
) -> Iterator[Instance]:
    """Yield `count` images as the frames of one file, which is its own series and study.

    Raises DataFault "missing-identifier" where the source names no patient.
    """
    patient = dict(payload.metadata).get("patient", "")
    if not patient:
        raise DataFault("missing-identifier", "the table names no patient for this file")
    digest = file_digest(data).hex()
    for number, image in enumerate(images, start=1):
        rows, columns = image.stored.shape[-2:]
        yield Instance(
            patient_id=patient,
            study_uid=payload.name,
            series_uid=payload.name,
            sop_instance_uid=payload.name,
            image=image,
            content_blake3=digest,
            pixel_blake3=pixel_digest(image.stored).hex(),
            frame=number if count > 1 else 0,
            attributes={"modality": modality, "rows": rows, "columns": columns},
            findings=(*findings, *_findings(image)),
        )


def _findings(image: Image) -> tuple[str, ...]:
    """Return what is to be known of an image beside its pixels."""
    if image.padding is not None:
        return ("no-number",)
    # 12 bits in 16 are common, and no format says so: PNG's chunk sBIT is about levels that were stretched to 16.
    if image.vois == SIXTEEN_BITS and image.stored.max() <= DARK:
        return ("dark-picture",)
    return ()


@contextmanager
def decoding() -> Iterator[None]:
    """Turn any exception of a decoder into DataFault "undecodable".

    Its text is dropped, as it may quote the file. Decoders raise anything on hostile bytes: struct.error, KeyError,
    RuntimeError and more.
    """
    try:
        yield
    except (RadloopError, MemoryError):
        raise
    except Exception as error:
        raise DataFault("undecodable", f"the file cannot be decoded ({type(error).__name__})") from None
