"""Reading of formats without a DICOM header: the bytes of a payload, its patient, and one kind of failure."""

from collections.abc import Iterator
from contextlib import contextmanager

from imaging.dicom.limits import LIMITS
from imaging.errors import DataFault, RadloopError
from imaging.file_io import FileBuffer
from imaging.image.image import Image
from imaging.image.instance import Instance
from imaging.pixel_digests import file_digest, pixel_digest
from imaging.sources.protocol import Payload


def content_of(payload: Payload) -> bytes | memoryview:
    """Return the bytes of the one file of a payload; a large file of this machine is mapped, not read."""
    (content,) = payload.contents
    return FileBuffer().load(content, LIMITS.file_bytes)


def instances(
    payload: Payload, data: bytes | memoryview, modality: str, images: Iterator[Image], count: int
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
        )


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
        raise DataFault("undecodable", type(error).__name__) from None
