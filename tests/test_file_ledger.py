"""The ledger of a de-identified folder: the last row of a file counts, and the plan reads only what changed."""

from pathlib import Path

import pytest

from imaging.deidentify.folder.file_ledger import (
    REMOVED,
    FileLedger,
    InstanceContents,
    LedgerEntry,
    ReadPlan,
    latest,
    output_digests,
    plan_reading,
    read_rows,
    to_bytes,
    to_table,
)
from imaging.errors import EnvironmentFault
from imaging.pseudonyms import Pseudonyms
from imaging.refusal_reasons import CONFLICTING_OBJECT
from imaging.sources.protocol import SourceFile
from imaging.store.folder_store import FolderStore

KEY = Pseudonyms(b"k" * 32)
FILES = [SourceFile(name=f"f{number}", size_bytes=number, mtime_ns=10 * number) for number in range(4)]


def row(file: SourceFile, **others: str) -> LedgerEntry:
    columns = {"output": f"images/p/s/t/{file.name}.dcm", "blake3": "0" * 64} | others
    return LedgerEntry(
        source_key=KEY.key("file", file.name),
        source_size=file.size_bytes,
        source_mtime_ns=file.mtime_ns,
        **columns,
    )


def planned(files: list[SourceFile], *rows: LedgerEntry) -> ReadPlan:
    return plan_reading(files, latest(to_table(rows)), KEY)


def ledger(root: Path, *parts: list[LedgerEntry]) -> FileLedger:
    made = FileLedger(FolderStore(root), "parts")
    for entries in parts:
        made.store.write("rows", to_bytes(to_table(entries)))
        made.add("rows")
    return made


def test_rows_come_back_as_they_were_written(tmp_path: Path) -> None:
    rows = [row(file) for file in FILES]
    assert [LedgerEntry(**one) for one in ledger(tmp_path, rows[:1], rows[1:]).read().to_pylist()] == rows


def test_parts_beyond_ten_keep_their_order(tmp_path: Path) -> None:
    made = ledger(tmp_path, *([row(FILES[0], detail=str(number))] for number in range(12)))
    assert latest(made.read())["detail"].to_pylist() == ["11"]


def test_compacting_keeps_the_rows_that_count(tmp_path: Path) -> None:
    made = ledger(tmp_path, [row(FILES[0]), row(FILES[1])], [row(FILES[0], output="", reason=REMOVED)])
    before = latest(made.read())
    made.compact("rows")
    assert (made.read(), len(made.parts())) == (before, 1)


def test_a_part_after_compacting_wins_over_it(tmp_path: Path) -> None:
    made = ledger(tmp_path, [row(FILES[0])], [row(FILES[0], detail="second")])
    made.compact("rows")
    made.store.write("rows", to_bytes(to_table([row(FILES[0], detail="third")])))
    made.add("rows")
    assert latest(made.read())["detail"].to_pylist() == ["third"]


def test_a_part_without_our_columns_is_an_environment_fault(tmp_path: Path) -> None:
    (tmp_path / "00000000.parquet").write_bytes(b"PAR1 is not enough PAR1")
    with pytest.raises(EnvironmentFault, match=r"00000000\.parquet is damaged"):
        read_rows(tmp_path / "00000000.parquet")


def test_all_files_are_read_at_first() -> None:
    assert planned(FILES).to_read == FILES


def test_no_file_is_read_again() -> None:
    assert planned(FILES, *map(row, FILES)).to_read == []


@pytest.mark.parametrize("changed", [{"size_bytes": 99}, {"mtime_ns": 99}])
def test_a_changed_file_is_read_again_and_does_not_stand(changed: dict[str, int]) -> None:
    other = SourceFile(**{"name": "f2", "size_bytes": 2, "mtime_ns": 20} | changed)
    plan = planned([*FILES[:2], other, FILES[3]], *map(row, FILES))
    assert (plan.to_read, plan.current.num_rows, plan.removed.num_rows) == ([other], 3, 0)


def test_a_file_that_is_gone_is_removed() -> None:
    plan = planned(FILES[1:], *map(row, FILES))
    assert (plan.removed["source_key"].to_pylist(), plan.to_read) == ([KEY.key("file", "f0")], [])


def test_a_removed_file_is_not_removed_again() -> None:
    assert planned(FILES[1:], row(FILES[0], output="", reason=REMOVED)).removed.num_rows == 0


def test_a_removed_file_that_comes_back_is_read() -> None:
    assert planned(FILES[:1], row(FILES[0], output="", reason=REMOVED)).to_read == FILES[:1]


def test_a_refused_file_is_not_read_again() -> None:
    assert planned(FILES[:1], row(FILES[0], output="", reason="truncated")).to_read == []


def test_what_was_in_conflict_is_read_again_once_an_output_is_lost() -> None:
    conflict = row(FILES[1], output="", reason=CONFLICTING_OBJECT)
    assert planned(FILES[1:2], row(FILES[0]), conflict).to_read == FILES[1:2]


def test_what_was_in_conflict_is_left_alone_while_all_outputs_stand() -> None:
    conflict = row(FILES[1], output="", reason=CONFLICTING_OBJECT)
    assert planned(FILES[:2], row(FILES[0]), conflict).to_read == []


def test_an_instance_is_claimed_once_for_each_content() -> None:
    instances = InstanceContents(output_digests(to_table([row(FILES[0])])))
    name, other = "images/p/s/t/f0.dcm", "images/q/s/t/f0.dcm"
    assert [instances.claim(name, "0" * 64), instances.claim(other, "1" * 64)] == [True, False]


def test_a_new_instance_may_stand() -> None:
    assert InstanceContents(()).claim("images/p/s/t/f0.dcm", "1" * 64)
