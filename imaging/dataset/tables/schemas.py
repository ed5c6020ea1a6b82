"""Columns of the tables of a version: examples, refused files (quarantine), splits, tombstones and annotations.

Rows travel as tables of these columns from the workers to the manifest; there is never an object for each row.
"""

from collections.abc import Mapping
from typing import Any

import pyarrow as pa

from imaging.image.source_grid import AFFINE_BYTES, NO_AFFINE

FINGERPRINT_BYTES = 64
"""Size of the fingerprint that `imaging.dataset.split.fingerprint` makes of a prepared image."""

SOURCE = [
    pa.field("source_key", pa.string(), nullable=False),
    pa.field("source_size", pa.int64(), nullable=False),
    pa.field("source_mtime_ns", pa.int64(), nullable=False),
    pa.field("source_tag", pa.string(), nullable=False),
]
"""The file of a row: its keyed name, and its size, modification time and ETag ("" where there is none) when listed."""

GRID = [
    # 1 of an image, 0 in rows of release 0.1.0.
    pa.field("slices", pa.int32(), nullable=False),
    # In mm, or relative where the file gives only the ratio of sides.
    *(pa.field(f"{axis}_spacing", pa.float64()) for axis in ("slice", "row", "column")),
    # From (column, row, slice, 1) to mm in LPS: twelve doubles, row by row, all zeros where it is not known.
    pa.field("affine", pa.binary(AFFINE_BYTES), nullable=False),
]
"""The source grid of an example, with its rows and columns (`imaging.image.source_grid`)."""

EXAMPLES = pa.schema(
    [
        # Keyed pseudonyms. A frame is an example of its own; `object_key` is that of the DICOM object it is of.
        *(
            pa.field(f"{level}_key", pa.string(), nullable=False)
            for level in ("instance", "object", "series", "study", "patient")
        ),
        # The patient under the other policy about variants of a PatientID; "" where that is the same.
        pa.field("patient_variant", pa.string(), nullable=False),
        # The institution, "" where the file names none.
        pa.field("site_key", pa.string(), nullable=False),
        *SOURCE,
        # BLAKE3 of the file, and of its stored pixels whatever they are compressed by.
        pa.field("content_blake3", pa.string(), nullable=False),
        pa.field("pixel_blake3", pa.string(), nullable=False),
        pa.field("fingerprint", pa.binary(FINGERPRINT_BYTES), nullable=False),
        pa.field("spec", pa.string(), nullable=False),
        pa.field("shard", pa.string(), nullable=False),
        pa.field("row", pa.int64(), nullable=False),
        pa.field("source_label", pa.string()),
        pa.field("source_split", pa.string()),
        *(
            pa.field(name, pa.string(), nullable=False)
            for name in ("modality", "manufacturer", "model", "body_part")
        ),
        pa.field("frame", pa.int32(), nullable=False),
        pa.field("rows", pa.int32(), nullable=False),
        pa.field("columns", pa.int32(), nullable=False),
        pa.field("spacing_mm", pa.float64()),
        pa.field("kvp", pa.float64()),
        # Keys of `imaging.dicom.findings.FINDINGS`, with spaces between them.
        pa.field("findings", pa.string(), nullable=False),
        *GRID,
        # In which the affine is, "" where the file names none, and in rows of release 0.1.0.
        pa.field("frame_of_reference_key", pa.string(), nullable=False),
        # The keys of the objects that the slices of a volume are of, one behind the other, NO_KEY for one that was
        # filled from its neighbours. "" of all other examples, and in rows of earlier releases.
        pa.field("slice_keys", pa.string(), nullable=False),
    ]
)
"""An example as it comes out of a chunk, before label and split are joined."""

REFUSALS = pa.schema(
    [
        *SOURCE,
        # "" where the study is not known.
        pa.field("study_key", pa.string(), nullable=False),
        pa.field("spec", pa.string(), nullable=False),
        pa.field("reason", pa.string(), nullable=False),
        pa.field("detail", pa.string(), nullable=False),
    ]
)
"""A source file that gave no example, and why; reasons are those of `imaging.refusal_reasons`."""

TABLES = {
    # `label_fault` says why there is no label; an image that has none and is of a known patient may have a split.
    "examples": pa.schema(
        [*EXAMPLES, *(pa.field(name, pa.string()) for name in ("label", "label_fault", "split"))]
    ),
    "quarantine": REFUSALS,
    "splits": pa.schema([pa.field("patient_key", pa.string()), pa.field("split", pa.string())]),
    # Examples whose source is gone.
    "tombstones": pa.schema(
        [
            pa.field(name, pa.string(), nullable=False)
            for name in ("instance_key", "patient_key", "source_key")
        ]
    ),
    # What is known of an example beside its one label, which is the column `label` of `examples`: one row for each
    # target of which something is known. A version without such rows has no such table.
    "annotations": pa.schema(
        [
            *(pa.field(name, pa.string(), nullable=False) for name in ("instance_key", "target", "kind")),
            # Of a finding PRESENT or ABSENT, of a class its name, of a mask what is known of it as JSON: see
            # `imaging.dataset.tables.mask_rows`. A mask that was refused has a row without a shard.
            pa.field("value", pa.string()),
            pa.field("mask_shard", pa.string()),
            pa.field("mask_row", pa.int64()),
        ]
    ),
}

KINDS = (CLASS, FINDING, MASK) = ("class", "finding", "mask")
"""Kinds of annotations: one class of several, a finding that is there or not, an image of class numbers."""
ABSENT, PRESENT = "0", "1"
ANNOTATIONS_SINCE = "0.2.0"
"""Release that brought the annotations: a version with any needs it."""

LATER_COLUMNS: Mapping[str, Any] = {
    "slices": 0,
    "slice_spacing": None,
    "row_spacing": None,
    "column_spacing": None,
    "affine": NO_AFFINE,
    "frame_of_reference_key": "",
    "slice_keys": "",
}
"""Columns that came after release 0.1.0, and what each holds in rows of an older release.

A part in which all rows hold that is written without the column, so that it keeps its name (see
imaging.release_compatibility).
"""
