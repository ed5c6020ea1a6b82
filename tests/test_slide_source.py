"""Listing of slides: which level is taken, what stands alone, and the pieces that become rows of one slide."""

from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from imaging.dataset.ingest.chunk import ChunkResult, prepare_chunk
from imaging.errors import DataFault
from imaging.formats import slide_grid
from imaging.formats.peek import peek_batch
from imaging.formats.slide_source import SlideSource
from imaging.preprocess.spec import PreprocessSpec
from imaging.pseudonyms import Pseudonyms
from imaging.sandbox.pool import Item, Pool
from imaging.sandbox.worker_process import Answer
from imaging.sources.folder_source import FolderSource
from imaging.sources.patients import Patients
from imaging.store.folder_store import FolderStore
from tests.sandbox_pools import in_process
from tests.whole_slides import TIFF_KINDS, halved, slide_object, tissue

LEVELS = halved(tissue(256, nuclei=20), 3)
"""64 µm of glass at 0.25, 0.5 and 1 µm."""
NAMES = Pseudonyms(b"k" * 32)


class PeekHere(Pool):
    """Pool that peeks in this process, without the sandbox."""

    def __init__(self) -> None:
        super().__init__("imaging.formats.peek:peek_batch", {"slides": True})

    def map(self, items: Iterable[Item]) -> Iterator[Answer]:  # type: ignore[override]
        for item in items:
            answer, _ = peek_batch({"slides": True}, item.value, item.blobs)
            plain = [{**one, "attributes": dict(one["attributes"])} for one in answer]
            yield Answer(plain)


def pyramid(folder: Path, **changes: Any) -> None:
    for number, level in enumerate(LEVELS):
        (folder / f"{number}.dcm").write_bytes(slide_object(level, 0.25 * 2**number, **changes))


def source(folder: Path, **spec: Any) -> SlideSource:
    asked = PreprocessSpec(**{"modality": "SM", "slide_mpp": 0.5, "size_px": 32} | spec)
    return SlideSource(FolderSource(folder, Patients({"a.svs": "P2"})), PeekHere(), asked)


def listed(slides: SlideSource) -> dict[str, list[tuple[str, str]]]:
    """Return the members of each listed file: their names and pieces."""
    return {file.name: [(one.name, one.piece) for one in slides.members[file.name]] for file in slides.scan()}


def prepared(slides: SlideSource, store: Path) -> ChunkResult:
    files = slides.pieces(list(slides.scan()))
    run = in_process({"spec": slides.spec.model_dump_json()})
    return prepare_chunk(slides, files, slides.spec, NAMES, FolderStore(store), run)


@pytest.mark.parametrize(("mpp", "level"), [(0.25, 0), (0.4, 0), (0.5, 1), (0.9, 1), (0.97, 2), (4.0, 2)])
def test_the_coarsest_level_that_is_as_fine_is_listed_for_a_series(
    tmp_path: Path, mpp: float, level: int
) -> None:
    pyramid(tmp_path)
    assert listed(source(tmp_path, slide_mpp=mpp)) == {"series 1.2.3.4": [(f"{level}.dcm", "1/1")]}


def test_labels_and_damaged_levels_stand_alone(tmp_path: Path) -> None:
    pyramid(tmp_path)
    label = slide_object(LEVELS[2], None, ImageType=["ORIGINAL", "PRIMARY", "LABEL", "NONE"])
    (tmp_path / "label.dcm").write_bytes(label)
    (tmp_path / "1.dcm").write_bytes((tmp_path / "1.dcm").read_bytes()[:-9000])
    slides = source(tmp_path)
    assert listed(slides) == {
        "series 1.2.3.4": [("0.dcm", "1/1")],
        "1.dcm": [("1.dcm", "1/1")],
        "label.dcm": [("label.dcm", "1/1")],
    }
    refusals = prepared(slides, tmp_path / "store").refusals.to_pydict()["reason"]
    assert sorted(refusals) == ["slide-background", "slide-label", "truncated"]


def test_a_copy_of_a_level_costs_itself_alone(tmp_path: Path) -> None:
    pyramid(tmp_path)
    (tmp_path / "9.dcm").write_bytes((tmp_path / "1.dcm").read_bytes())
    assert listed(source(tmp_path)) == {"series 1.2.3.4": [("1.dcm", "1/1")]}


def test_a_slide_in_pieces_is_as_large_as_its_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pyramid(tmp_path)
    monkeypatch.setattr(slide_grid, "PIECE_BYTES", 4 * 32**2)
    slides = source(tmp_path)
    (file,) = slides.scan()
    assert len(slides.members[file.name]) == 4
    assert file.size_bytes == (tmp_path / "1.dcm").stat().st_size


def test_what_is_left_out_of_the_pieces_of_a_slide_is_one_row(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pyramid(tmp_path)
    monkeypatch.setattr(slide_grid, "PIECE_BYTES", 4 * 32**2)
    made = prepared(source(tmp_path), tmp_path / "store")
    assert made.refusals.select(["reason", "detail"]).to_pylist() == [
        {"reason": "slide-background", "detail": "12 of 16 tiles are background"}
    ]


def test_images_of_one_resolution_are_refused_and_not_chosen_from(tmp_path: Path) -> None:
    for name in "ab":
        (tmp_path / name).write_bytes(slide_object(LEVELS[0], 0.5))
    slides = source(tmp_path)
    for file in slides.pieces(list(slides.scan())):
        with pytest.raises(DataFault, match="one resolution"):
            slides.fetch(file)


def test_a_slide_that_is_too_coarse_is_listed_and_refused(tmp_path: Path) -> None:
    pyramid(tmp_path)
    made = prepared(source(tmp_path, slide_mpp=0.2), tmp_path / "store")
    assert made.refusals["reason"].to_pylist() == ["slide-resolution"] * 3


def test_all_tiles_of_a_slide_have_its_keys_and_its_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pyramid(tmp_path)
    TIFF_KINDS["aperio.svs"](tmp_path / "a.svs", LEVELS, 0.25)
    monkeypatch.setattr(slide_grid, "PIECE_BYTES", 4 * 32**2)
    slides = source(tmp_path)
    assert {name: len(pieces) for name, pieces in listed(slides).items()} == {"series 1.2.3.4": 4, "a.svs": 4}
    examples = prepared(slides, tmp_path / "store").examples.to_pydict()
    series, file, patient = (
        NAMES.key("series", "1.2.3.4"),
        NAMES.key("file", "a.svs"),
        NAMES.key("patient", "P2"),
    )
    dicom, tiff = examples["series_key"].index(series), examples["source_key"].index(file)
    rows = {name: [examples[name][at] for at in (dicom, tiff)] for name in examples}
    assert rows["object_key"] == rows["series_key"] == [series, NAMES.key("series", "a.svs")]
    assert rows["patient_key"] == [NAMES.key("patient", "P1"), patient]
    # Of 4 x 4 tiles of 32 pixels the four in the middle.
    assert sorted(examples["frame"]) == sorted([6, 7, 10, 11] * 2)
    for name in ("series_key", "study_key", "object_key", "source_key", "source_size"):
        assert len(set(examples[name])) == 2
    assert len(set(examples["instance_key"])) == 8


def test_what_is_left_out_of_a_slide_is_a_row_beside_its_examples(tmp_path: Path) -> None:
    (tmp_path / "0.dcm").write_bytes(slide_object(LEVELS[1], 0.5))
    made = prepared(source(tmp_path), tmp_path / "store")
    assert made.examples.num_rows == 4
    assert made.refusals.select(["reason", "detail", "study_key"]).to_pylist() == [
        {
            "reason": "slide-background",
            "detail": "12 of 16 tiles are background",
            "study_key": NAMES.key("study", "1.2.3"),
        }
    ]


def test_prepared_tiles_have_the_pixels_of_the_level(tmp_path: Path) -> None:
    (tmp_path / "0.dcm").write_bytes(slide_object(LEVELS[1], 0.5))
    made = prepared(source(tmp_path), tmp_path / "store")
    (shard,) = (tmp_path / "store" / "shards").rglob("*.npy")
    first = np.load(shard)[made.examples["row"][0].as_py()]
    # At the level's own resolution: nothing but the brightness of ITU-R BT.601.
    assert np.abs(first - LEVELS[1][32:64, 32:64] @ [0.299, 0.587, 0.114]).max() < 1


def test_slides_are_of_modality_sm_where_none_is_named() -> None:
    assert (PreprocessSpec(slide_mpp=0.5).modality, PreprocessSpec(slide_mpp=0.5).window) == ("SM", "auto")
    assert PreprocessSpec(slide_mpp=0.5, modality="GM").modality == "GM"


def test_tiles_have_no_depth() -> None:
    with pytest.raises(ValueError, match=r"slide_mpp is 0\.5"):
        PreprocessSpec(kind="volume", slide_mpp=0.5)
