"""The page on datasets: a stranger reads a version by its lines alone, and its tables name what there is."""

import re
from pathlib import Path

import numpy as np
import pyarrow as pa

from imaging.dataset.tables.schemas import LATER_COLUMNS, TABLES
from imaging.store.folder_store import FolderStore
from tests.synthetic import version_of

PAGE = (Path(__file__).parent.parent / "docs" / "datasets.md").read_text()


def test_a_version_is_read_by_the_lines_of_the_page(tmp_path: Path) -> None:
    version = version_of(FolderStore(tmp_path / "store"), name="lesion")
    (lines,) = re.findall(r"```python\n(.*?)```", PAGE, re.DOTALL)
    namespace: dict[str, object] = {}
    exec(lines.replace('Path("store")', f"Path({str(tmp_path / 'store')!r})"), namespace)
    examples, table = namespace["examples"], version.table("examples")
    assert isinstance(examples, pa.Table)
    assert examples.cast(table.select(examples.column_names).schema) == table.select(examples.column_names)
    # No part has a column that none of its rows uses.
    assert {*table.column_names} - {*examples.column_names} <= {*LATER_COLUMNS}
    level = {"dark": 60, "bright": 190}[str(namespace["label"])]
    assert np.array_equal(np.asarray(namespace["image"]), np.full((16, 16), level))


def test_every_column_of_an_example_is_in_the_page() -> None:
    named = set(re.findall(r"`(\w+)`", PAGE))
    assert set(TABLES["examples"].names) <= named


def test_every_table_of_a_version_is_in_the_page() -> None:
    assert set(TABLES) <= set(re.findall(r"`(\w+)`", PAGE))
