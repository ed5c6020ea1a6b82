"""Annotations as rows: what is known comes back, what is unknown has no row, and parts follow the keys."""

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from imaging.dataset.tables.annotation_rows import (
    SCHEMA,
    annotation_groups,
    class_rows,
    finding_array,
    finding_rows,
)

FINDINGS = np.array([[1, -1], [0, 1], [-1, -1]], np.int8)
KEYS = pa.chunked_array([["b1", "a1"], ["a2"]])


def test_what_is_unknown_has_no_row() -> None:
    rows = finding_rows(KEYS.combine_chunks(), FINDINGS, ["mass", "oedema"])
    assert rows.schema == SCHEMA
    assert list(
        zip(*(rows[name].to_pylist() for name in ("instance_key", "target", "value")), strict=True)
    ) == [
        ("b1", "mass", "1"),
        ("a1", "mass", "0"),
        ("a1", "oedema", "1"),
    ]


def test_groups_are_in_the_order_of_the_prefix_with_rows_of_other_kinds() -> None:
    mask = {"instance_key": "c1", "target": "heart", "kind": "mask", "mask_shard": "s", "mask_row": 3}
    others = pa.Table.from_pylist([mask], SCHEMA)
    groups = annotation_groups(KEYS, FINDINGS, ["mass", "oedema"], others, 1)
    assert [group.select(["instance_key"])["instance_key"].to_pylist() for group in groups] == [
        ["a1", "a1"],
        ["b1"],
        ["c1"],
    ]


@given(st.integers(0, 30), st.integers(1, 4), st.integers(0, 2), st.randoms(use_true_random=False))
def test_findings_come_back_from_their_parts(
    count: int, names: int, digits: int, random: st.DataObject
) -> None:
    generator = np.random.default_rng(random.randint(0, 2**32))  # type: ignore[attr-defined]
    findings = generator.integers(-1, 2, (count, names), np.int8)
    keys = pa.chunked_array([pa.array([f"{n * 37 % 256:02x}{n}" for n in range(count)], pa.string())])
    titles = [f"f{n}" for n in range(names)]
    groups = annotation_groups(keys, findings, titles, SCHEMA.empty_table(), digits)
    parts = [group.select(SCHEMA.names) for group in groups]
    assert np.array_equal(finding_array(keys, parts, titles), findings)


@pytest.mark.parametrize("kind", ["class", "mask"])
def test_rows_of_other_kinds_are_no_findings(kind: str) -> None:
    row = {"instance_key": "b1", "target": "mass", "kind": kind, "value": "1"}
    assert finding_array(KEYS, [pa.Table.from_pylist([row], SCHEMA)], ["mass"]).tolist() == [[-1]] * 3


def test_labels_of_every_release_are_annotations() -> None:
    examples = pa.table({"instance_key": ["a", "b"], "label": pa.array(["normal", None])})
    assert class_rows(examples).to_pylist() == [
        {
            "instance_key": "a",
            "target": "label",
            "kind": "class",
            "value": "normal",
            "mask_shard": None,
            "mask_row": None,
        }
    ]
