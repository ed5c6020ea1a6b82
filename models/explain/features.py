"""Features: the embedding of every example of a dataset version as Parquet, by a model whose file gives it."""

import math
from collections.abc import Callable, Mapping
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from imaging.dataset.version.dataset_version import DatasetVersion
from imaging.dataset.version.example_set import COLUMNS, ExampleSet
from imaging.errors import UserFault
from models.portable.contract import EMBEDDING
from models.portable.predictor import BATCH_BYTES, Predictor

KEYS = ("instance_key", "patient_key", "split")
"""Columns beside the embedding. Labels are left out: those of the test patients are for the verdict alone."""


def features_name(dataset: str, model: int, digest: str) -> str:
    """Return the name in the store: of the features of a dataset version by a version of the model of its name.

    >>> features_name("lesion", 3, "0123456789abcdef0123")
    'features/lesion/v3-0123456789abcdef.parquet'
    """
    return f"features/{dataset}/v{model}-{digest[:16]}.parquet"


def embedding_width(predictor: Predictor, what: str) -> int:
    """Return how many numbers the embedding has; raise UserFault for a file that gives none."""
    shapes = {output.name: output.shape for output in predictor.contract.outputs}
    if EMBEDDING not in shapes:
        raise UserFault(
            f"{what} gives no embedding: train it with `training: {{embedding: true}}` in a configuration file"
        )
    return int(shapes[EMBEDDING][1] or 0)


def write_features(
    predictor: Predictor,
    version: DatasetVersion,
    path: Path,
    metadata: Mapping[str, str],
    on_progress: Callable[[int, int], object] = lambda *_: None,
) -> int:
    """Write a row for each example, labelled or not, in the order of the version; return the number of rows.

    Memory is bounded by a batch of images; each batch is a row group.
    """
    width = embedding_width(predictor, "the model")
    columns = [*COLUMNS, "split"]
    table = version.table("examples", list(dict.fromkeys(columns)))
    findings = version.findings_of(table["instance_key"])
    examples = ExampleSet.of(version.store, table, version.classes, version.digest, findings)
    fields = [pa.field(key, pa.string()) for key in KEYS]
    schema = pa.schema([*fields, pa.field(EMBEDDING, pa.list_(pa.float32(), width))], metadata=dict(metadata))
    step = max(1, BATCH_BYTES // (4 * math.prod(version.spec.shape)))
    with pq.ParquetWriter(path, schema) as writer:
        for begin in range(0, len(examples), step):
            index = np.arange(begin, min(begin + step, len(examples)))
            values = predictor.predict_levels(examples.gather(index))[EMBEDDING]
            arrays = [table[key].slice(begin, len(index)).combine_chunks() for key in KEYS]
            embedding = pa.FixedSizeListArray.from_arrays(pa.array(values.ravel()), width)
            writer.write_table(pa.Table.from_arrays([*arrays, embedding], schema=schema))
            on_progress(int(index[-1]) + 1, len(examples))
    return len(examples)
