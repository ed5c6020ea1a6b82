"""Reading and preparation of source files in the sandbox: their prepared images in one block, and their rows.

The rows have original identifiers, which ingest replaces by pseudonyms.
"""

from collections.abc import Mapping, Sequence
from functools import cache
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from imaging.dataset.split.fingerprint import fingerprints
from imaging.errors import DataFault, LeftOut
from imaging.file_io import process_buffer
from imaging.formats.dicom import UID_HEAD_BYTES, parent_uids
from imaging.formats.readers import FORMATS, Reader
from imaging.image.instance import Instance
from imaging.image.source_grid import pack_grid
from imaging.preprocess.slice import prepare
from imaging.preprocess.spec import PreprocessSpec
from imaging.preprocess.volume import prepare_volume
from imaging.sandbox.messages import Blob
from imaging.sandbox.pool import Item
from imaging.sources.protocol import Payload

FUNCTION = "imaging.dataset.ingest.prepare_files:prepare_payloads"

COLUMNS = (
    *("payload", "patient_id", "study_uid", "series_uid", "sop_instance_uid", "institution"),
    *("frame_of_reference_uid", "slice_uids"),
    *("content_blake3", "pixel_blake3", "source_label", "source_split"),
    *("modality", "manufacturer", "model", "body_part"),
    *("frame", "rows", "columns", "spacing_mm", "kvp", "findings"),
)
"""Values of a row, in this order; `payload` counts from 0 within an item."""


def item_of(payloads: Sequence[Payload]) -> Item:
    """Return payloads as one item for the sandbox."""
    heads = [[one.format, one.name, one.metadata, len(one.contents)] for one in payloads]
    return Item({"payloads": heads}, tuple(content for one in payloads for content in one.contents))


def prepare_payloads(
    setup: Mapping[str, Any],
    value: Mapping[str, Any],
    blobs: Sequence[bytes | Path],
    formats: Mapping[str, Reader] = FORMATS,
) -> tuple[Any, Sequence[Blob]]:
    """Read and prepare some payloads; a `Function` of the sandbox.

    The answer has `rows`, each with the values of COLUMNS, and `faults`: payload, reason, detail and the UID of the
    study that lost it, "" where that is not known. Its blobs are the images (n, ...), their fingerprints, and their
    source grids.
    """
    keep_memory()
    spec, contents = _spec(setup["spec"]), iter(blobs)
    rows: list[list[Any]] = []
    images: list[NDArray[np.uint8]] = []
    grids: list[bytes] = []
    faults = []
    for number, (kind, name, metadata, count) in enumerate(value["payloads"]):
        payload = Payload(
            format=kind,
            name=name,
            contents=tuple(islice(contents, count)),
            metadata=tuple((key, text) for key, text in metadata),
        )
        made = []
        try:
            for one in formats[kind](payload, spec.modality):
                made.append((_row(number, one), _prepared(one, spec), _grid(one)))
            if not made:
                # A file without a row would be read again for ever.
                raise DataFault("no-pixels", "the file has no image")
        except LeftOut as left_out:
            faults += [[number, one.reason, one.detail, _study(payload)] for one in left_out.faults]
        except DataFault as fault:
            faults.append([number, fault.reason, fault.detail, _study(payload)])
            continue
        rows += [row for row, _, _ in made]
        images += [image for _, image, _ in made]
        grids += [grid for _, _, grid in made]
    if not images:
        return {"rows": rows, "faults": faults}, ()
    block = np.stack(images)
    return {"rows": rows, "faults": faults}, (block.data, fingerprints(block).data, b"".join(grids))


@cache
def _spec(json: str) -> PreprocessSpec:
    return PreprocessSpec.model_validate_json(json)


@cache
def keep_memory() -> None:
    """Have the C library keep what is freed: else it gives each slice's megabytes back, and the next slice pays.

    It keeps twice as much as the largest piece that was ever given back whole, up to 32 MiB (mallopt(3),
    M_MMAP_THRESHOLD); at 1 MiB each slice of 512 x 512 causes 700 page faults.
    """
    np.empty(31 * 2**20, np.uint8)


def _prepared(instance: Instance, spec: PreprocessSpec) -> NDArray[np.uint8]:
    image = instance.image
    if image.stored.ndim == 2 and spec.kind == "slice":
        return prepare(image, spec)
    if image.stored.ndim == 3 and spec.kind == "volume":
        return prepare_volume(image, spec)
    kind = "a volume" if image.stored.ndim == 3 else "a slice"
    raise DataFault("unsupported", f"the image is {kind}, the configuration asks for kind {spec.kind!r}")


def _grid(instance: Instance) -> bytes:
    image = instance.image
    return pack_grid(image.stored.shape, image.spacing_mm, image.affine)


def _study(payload: Payload) -> str:
    if payload.format not in ("dicom", "series", "slide"):
        return ""
    head, _ = process_buffer().head(payload.contents[0], UID_HEAD_BYTES)
    return str(parent_uids(head).get("StudyInstanceUID", ""))


def _row(payload: int, one: Instance) -> list[Any]:
    attribute = one.attributes.get
    return [
        *(payload, one.patient_id, one.study_uid, one.series_uid, one.sop_instance_uid, one.institution),
        *(one.frame_of_reference_uid, list(one.slice_uids)),
        *(one.content_blake3, one.pixel_blake3, one.label, one.split),
        *(attribute(name, "") for name in ("modality", "manufacturer", "model", "body_part")),
        *(one.frame, *one.image.stored.shape[-2:], attribute("spacing_mm"), attribute("kvp")),
        " ".join(one.findings),
    ]
