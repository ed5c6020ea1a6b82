"""Agreement with other readers in pixels and attributes; the bench finds a difference that is planted."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import nibabel
import numpy as np
import pydicom
import pytest
from pydicom.data import get_testdata_file

from bench.agreement import EXPLAINED, Explained, examine, judge, wheel_files
from bench.other_readers import Pair, Unreadable, our_stored, pairs
from tests.requirements import program

GREY = np.arange(24).reshape(2, 3, 4)
FILE = ("it", Path(str(get_testdata_file("CT_small.dcm"))))


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> list[tuple[str, Path]]:
    folder = tmp_path_factory.mktemp("unpacked")
    return [file for package in (pydicom, nibabel) for file in wheel_files(package, folder)]


@pytest.fixture(scope="module")
def readers() -> Iterator[dict[str, Pair]]:
    with pairs() as readers:
        yield dict(readers)


@pytest.fixture
def dcmtk() -> None:
    program("dcmdump", "dcmtk")


def differing(pixels: Any) -> dict[str, Pair]:
    return {"it": (lambda _: GREY, lambda _: pixels)}


@pytest.mark.slow
@pytest.mark.parametrize("reader", ["gdcm", "SimpleITK"])
def test_pixels_agree_with_another_reader(
    reader: str, files: list[tuple[str, Path]], readers: dict[str, Pair]
) -> None:
    result = examine(files, {reader: readers[reader]})
    assert not result.unexplained
    assert not result.stale
    assert result.counts[reader]["equal"] > 80


@pytest.mark.slow
@pytest.mark.parametrize(("reader", "least"), [("dcmtk", 80), ("dcm2pnm", 2), ("dcmdump", 150)])
def test_dcmtk_reads_the_same(
    reader: str, least: int, dcmtk: None, files: list[tuple[str, Path]], readers: dict[str, Pair]
) -> None:
    result = examine(files, {reader: readers[reader]})
    assert not result.unexplained
    assert not result.stale
    assert result.counts[reader]["equal"] >= least


def test_a_big_endian_copy_has_the_values_of_its_original() -> None:
    copy, original = (
        our_stored(Path(str(get_testdata_file(f"{name}.dcm")))) for name in ("rtdose_expb", "rtdose")
    )
    np.testing.assert_array_equal(copy, original)


def test_other_pixels_are_a_disagreement() -> None:
    result = examine([FILE], differing(GREY + 1), {})
    assert result.unexplained == ["it it: 1 apart"]
    assert not examine([FILE], differing(GREY), {}).unexplained


def test_an_explanation_must_be_true() -> None:
    table = {("it", "*"): Explained("one more", lambda ours, theirs: bool((theirs == ours + 1).all()))}
    assert not examine([FILE], differing(GREY + 1), table).unexplained
    assert examine([FILE], differing(GREY + 2), table).unexplained


def test_an_explanation_that_nothing_needs_is_reported() -> None:
    table = {
        ("it", "i*"): Explained("one more", lambda *_: True),
        ("it", "other"): Explained("", lambda *_: True),
    }
    assert examine([FILE], differing(GREY), table).stale == ["it i*"]
    assert not examine([FILE], differing(GREY + 1), table).stale


def test_a_file_that_only_they_read_is_a_disagreement() -> None:
    def refuse(_: Path) -> None:
        raise Unreadable("truncated")

    assert examine([FILE], {"it": (refuse, lambda _: GREY)}, {}).unexplained
    assert not examine([FILE], {"it": (lambda _: GREY, refuse)}, {}).unexplained


@pytest.mark.parametrize(
    ("apart", "lossy", "outcome"),
    [(0, False, "equal"), (1, False, "differs"), (3, True, "within"), (4, True, "differs")],
)
def test_only_lossy_jpeg_may_be_rounded(apart: int, lossy: bool, outcome: str) -> None:
    assert judge(GREY, GREY + apart, lossy=lossy) == outcome


def test_a_shown_frame_may_be_one_level_off() -> None:
    assert judge(GREY[0] + 0.0, GREY[0] + 1.0, lossy=False) == "within"
    assert judge(GREY[0] + 0.0, GREY[0] + 1.1, lossy=False) == "differs"


def test_other_shapes_and_attributes_differ() -> None:
    assert judge(GREY, GREY[:1], lossy=True) == "differs"
    assert judge({"Rows": (1.0,)}, {"Rows": (2.0,)}, lossy=True) == "differs"
    assert judge({"Rows": (1.0,)}, {"Rows": (1.0,)}, lossy=True) == "equal"


def test_each_explanation_names_a_reader(readers: dict[str, Pair]) -> None:
    assert {reader for reader, _ in EXPLAINED} <= set(readers)
