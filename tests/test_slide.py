"""Whole slides: tiles of one resolution from DICOM and TIFF, what is background, and what is refused."""

import tracemalloc
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tifffile
from PIL import Image as Pictures
from pydicom import dcmread

from imaging.dicom.dicom_object import open_object
from imaging.errors import DataFault, LeftOut
from imaging.formats import slide_grid
from imaging.formats.readers import FORMATS
from imaging.formats.slide_level import DicomFrames, SlideLevel
from imaging.image.instance import Instance
from imaging.sources.protocol import Payload
from tests.whole_slides import (
    TIFF_KINDS,
    frames_of_level,
    halved,
    level_object,
    slide_object,
    tissue,
)

SLIDE = tissue(256, nuclei=40)
"""At 0.5 µm: 128 µm of glass with 64 x 64 µm of tissue in its middle."""
TISSUE_TILES = [6, 7, 10, 11]
"""Of 4 x 4 tiles of 64 pixels, those with tissue, from 1 on."""


@dataclass
class Read:
    """What is read of a slide: its tiles, and the reasons and details of what is left out."""

    tiles: list[Instance] = field(default_factory=list)
    left_out: dict[str, str] = field(default_factory=dict)

    @property
    def numbers(self) -> list[int]:
        return [one.frame for one in self.tiles]


def read(content: bytes | Path, kind: str = "slide", **asked: Any) -> Read:
    options = {"mpp": 0.5, "size_px": 64, "tissue": 0.1, "piece": "1/1", "patient": "P1"} | asked
    metadata = tuple((name, str(value)) for name, value in options.items())
    payload = Payload(format=kind, name="ward/slide.tif", contents=(content,), metadata=metadata)
    result = Read()
    try:
        for one in FORMATS[kind](payload, "SM"):
            result.tiles.append(one)
    except LeftOut as left_out:
        result.left_out = {one.reason: one.detail for one in left_out.faults}
    return result


def fault(content: bytes | Path, kind: str = "slide", **asked: Any) -> DataFault:
    with pytest.raises(DataFault) as caught:
        read(content, kind, **asked)
    return caught.value


def damaged(data: bytes, number: int) -> bytes:
    """Return a slide in which a codestream has no end."""
    start, length = open_object(data).frame_spans[number][0]
    return data[: start + length // 2] + bytes(length - length // 2) + data[start + length :]


def test_a_slide_becomes_tiles_of_its_tissue() -> None:
    slide = read(slide_object(SLIDE))
    assert slide.numbers == TISSUE_TILES
    assert slide.left_out == {"slide-background": "12 of 16 tiles are background"}


def test_tiles_of_a_slide_have_its_series_its_object_and_their_number() -> None:
    first = read(slide_object(SLIDE)).tiles[0]
    assert (first.patient_id, first.study_uid, first.series_uid) == ("P1", "1.2.3", "1.2.3.4")
    assert (first.sop_instance_uid, first.image.spacing_mm) == ("1.2.3.4", (0.0005, 0.0005))
    # The shares of colours of ITU-R BT.601.
    wanted = SLIDE[64:128, 64:128] @ [0.299, 0.587, 0.114]
    assert np.abs(first.image.stored - wanted).max() < 1


@pytest.mark.parametrize(
    "content",
    [
        pytest.param(slide_object(SLIDE, jpeg=True), id="JPEG"),
        pytest.param(
            slide_object(SLIDE, jpeg=True, PhotometricInterpretation="RGB"), id="JPEG that is called RGB"
        ),
        pytest.param(slide_object(SLIDE, tile=100), id="frames that end beyond the level"),
        pytest.param(slide_object(SLIDE, kept=range(64)), id="sparse, but whole"),
        pytest.param(slide_object(SLIDE, kept=reversed(range(64))), id="in another order"),
        pytest.param(slide_object(SLIDE, tile=256, kept=[0]), id="one frame"),
    ],
)
def test_however_it_is_written_a_slide_has_the_same_tiles(content: bytes) -> None:
    slide, same = read(slide_object(SLIDE)), read(content)
    assert same.numbers == slide.numbers
    pairs = zip(slide.tiles, same.tiles, strict=True)
    # JPEG at quality 90 in 4:2:0 blurs noise.
    assert all(abs(one.image.stored.mean() - other.image.stored.mean()) < 2 for one, other in pairs)


@pytest.mark.parametrize("name", TIFF_KINDS)
def test_the_pyramids_of_tiff_are_read(name: str, tmp_path: Path) -> None:
    TIFF_KINDS[name](tmp_path / name, halved(tissue(512, nuclei=40), 3), 0.25)
    # The level of 0.5 µm is taken; without it the tiles would have 128 pixels.
    from_path, from_bytes = (
        read(content, "tiff-slide") for content in (tmp_path / name, (tmp_path / name).read_bytes())
    )
    assert from_path.numbers == from_bytes.numbers == TISSUE_TILES
    assert from_path.tiles[0].image.stored.shape == (64, 64)
    assert from_path.tiles[0].series_uid == "ward/slide.tif"
    assert from_path.tiles[0].image.spacing_mm == pytest.approx((0.0005, 0.0005))


@pytest.mark.parametrize("unit", ["µm", "mm"])
def test_the_resolution_of_ome_tiff_is_that_of_its_first_image(tmp_path: Path, unit: str) -> None:
    # A macro has a size of its own (OME-XML, Pixels): 15.2 µm are what an overview camera has.
    size = {f"PhysicalSize{axis}": 0.5 for axis in "XY"} | {f"PhysicalSize{axis}Unit": "µm" for axis in "XY"}
    macro = {f"PhysicalSize{axis}": 15.2 for axis in "XY"} | {
        f"PhysicalSize{axis}Unit": unit for axis in "XY"
    }
    with tifffile.TiffWriter(tmp_path / "a.ome.tif", ome=True) as writer:
        writer.write(SLIDE, photometric="rgb", tile=(64, 64), metadata={"axes": "YXS", **size})
        writer.write(SLIDE[::4, ::4], photometric="rgb", metadata={"axes": "YXS", **macro})
    slide = read(tmp_path / "a.ome.tif", "tiff-slide")
    assert slide.numbers == TISSUE_TILES
    assert slide.tiles[0].image.spacing_mm == (0.0005, 0.0005)


def test_labels_and_macros_of_tiff_are_no_levels(tmp_path: Path) -> None:
    TIFF_KINDS["aperio.svs"](tmp_path / "a.svs", [SLIDE], 0.5)
    assert read(tmp_path / "a.svs", "tiff-slide").numbers == TISSUE_TILES
    # The thumbnail, a level of 4 µm by its size, is not taken either: it has no tiles.
    assert read(tmp_path / "a.svs", "tiff-slide", mpp=4.0, size_px=16).tiles[0].image.stored.shape == (
        128,
        128,
    )


def test_a_level_is_put_together_of_the_frames_that_pydicom_reads() -> None:
    data = slide_object(SLIDE[:200, :230], tile=48, kept=[0, 3, 7, 8, 14, 24])
    level = SlideLevel(DicomFrames(open_object(data)))
    whole = level.cut((0, 0, 200, 230))
    dataset = dcmread(BytesIO(data))
    frames = dataset.pixel_array
    wanted = np.full((200, 230, 3), 255, np.uint8)
    for groups, frame in zip(dataset.PerFrameFunctionalGroupsSequence, frames, strict=True):
        place = groups.PlanePositionSlideSequence[0]
        row, column = (
            place.RowPositionInTotalImagePixelMatrix - 1,
            place.ColumnPositionInTotalImagePixelMatrix - 1,
        )
        part = wanted[row : row + 48, column : column + 48]
        part[:] = frame[: part.shape[0], : part.shape[1]]
    assert whole is not None and (whole == wanted).all()


def test_a_resolution_between_levels_is_averaged_from_the_finer_one() -> None:
    slide = read(slide_object(SLIDE, 0.4), mpp=0.5, size_px=32)
    # 32 pixels of 0.5 µm are 40 pixels of 0.4 µm.
    assert {one.image.stored.shape for one in slide.tiles} == {(40, 40)}


def test_a_level_that_is_hardly_coarser_is_taken() -> None:
    # 64 pixels of 0.5 µm are 63.5 of 0.504 µm, which are enlarged.
    assert read(slide_object(SLIDE, 0.504)).tiles[0].image.stored.shape == (63, 63)


def test_pieces_of_a_slide_are_the_slide() -> None:
    pieces = [read(slide_object(SLIDE), piece=f"{n}/3").numbers for n in (1, 2, 3)]
    assert [number for piece in pieces for number in piece] == TISSUE_TILES
    assert max(map(len, pieces)) < 4


def test_a_large_slide_has_many_pieces() -> None:
    level = slide_grid.LevelSize(rows=40_000, columns=40_000, row_um=0.25, column_um=0.25)
    grid = slide_grid.TileGrid(level=level, size_px=224, mpp=0.5)
    covered = [tile for n in range(1, grid.pieces + 1) for tile in grid.tiles(f"{n}/{grid.pieces}")]
    assert covered == list(range(90 * 90))
    assert max(len(grid.tiles(f"{n}/{grid.pieces}")) for n in range(1, 9)) * 448**2 <= slide_grid.PIECE_PIXELS


def test_absent_tiles_are_background_and_glass() -> None:
    slide = read(slide_object(SLIDE, kept=[18, 19, 26, 27]), tissue=0)
    # Frames of 32: these four are the first tile with tissue. Where no frame is, nothing was scanned.
    assert slide.numbers == [6]
    half = read(slide_object(SLIDE, kept=[18, 26]), tissue=0).tiles[0].image.stored
    assert (half[:, 32:] == 255).all() and half[:, :32].max() < 255


def test_all_tiles_are_kept_where_no_tissue_is_asked_for() -> None:
    assert read(slide_object(SLIDE), tissue=0).numbers == list(range(1, 17))


def test_a_slide_of_background_alone_has_no_tiles() -> None:
    slide = read(slide_object(np.full((128, 128, 3), 240, np.uint8)))
    assert (slide.tiles, slide.left_out) == ([], {"slide-background": "4 of 4 tiles are background"})


def test_black_and_grey_are_no_tissue() -> None:
    pen = SLIDE.copy()
    pen[64:192, 64:128] = 20
    assert read(slide_object(pen)).numbers == [7, 11]


@pytest.mark.parametrize("kind", [np.uint8, np.uint16])
def test_a_grey_slide_has_no_background(kind: type) -> None:
    grey = np.arange(64 * 64, dtype=kind).reshape(64, 64)
    slide = read(slide_object(grey), size_px=32)
    assert slide.numbers == [1, 2, 3, 4]
    assert (slide.tiles[3].image.stored == grey[32:, 32:]).all()


def test_a_grey_tile_of_one_value_shows_nothing() -> None:
    grey = np.zeros((64, 64), np.uint8)
    grey[40, 40] = 9
    slide = read(slide_object(grey), size_px=32)
    assert (slide.numbers, slide.left_out) == ([4], {"slide-background": "3 of 4 tiles are background"})


def test_a_tile_of_one_value_is_no_copy_of_one_in_another_slide() -> None:
    grey = np.arange(64 * 64, dtype=np.uint8).reshape(64, 64)
    grey[:32, :32] = 0
    one, other = (
        read(slide_object(grey, SeriesInstanceUID=uid), size_px=32, tissue=0).tiles for uid in ("1.2", "1.3")
    )
    same = [a.pixel_blake3 == b.pixel_blake3 for a, b in zip(one, other, strict=True)]
    assert same == [False, True, True, True]


def test_a_damaged_frame_costs_its_tiles_alone() -> None:
    slide = read(damaged(slide_object(SLIDE, jpeg=True, tile=64), 5))
    assert slide.numbers == TISSUE_TILES[1:]
    assert slide.left_out["truncated"].startswith("1 of 16 tiles, the first: the codestream of ")


def test_the_same_tile_in_two_places_is_no_repetition() -> None:
    slide = read(slide_object(np.full((128, 64, 3), (180, 70, 140), np.uint8)))
    first, second = slide.tiles
    assert first.content_blake3 == second.content_blake3
    assert first.pixel_blake3 != second.pixel_blake3


def _groups(data: bytes, change: Callable[[Any], None]) -> bytes:
    dataset = dcmread(BytesIO(data))
    change(dataset)
    buffer = BytesIO()
    dataset.save_as(buffer)
    return buffer.getvalue()


def _move(dataset: Any, number: int, row: int) -> None:
    groups = dataset.PerFrameFunctionalGroupsSequence[number]
    groups.PlanePositionSlideSequence[0].RowPositionInTotalImagePixelMatrix = row


def flavor(name: str) -> list[str]:
    return ["ORIGINAL", "PRIMARY", name, "NONE"]


REFUSED: Mapping[str, tuple[bytes, str, str]] = {
    "a label": (slide_object(SLIDE, None, ImageType=flavor("LABEL")), "slide-label", "names"),
    "an overview": (slide_object(SLIDE, None, ImageType=flavor("OVERVIEW")), "slide-label", "names"),
    "a thumbnail": (slide_object(SLIDE, ImageType=flavor("THUMBNAIL")), "slide-thumbnail", ""),
    "another flavor": (slide_object(SLIDE, ImageType=flavor("OTHER")), "unsupported", "not VOLUME"),
    "no resolution": (slide_object(SLIDE, None), "slide-resolution", "PixelSpacing"),
    "too coarse": (slide_object(SLIDE, 0.6), "slide-resolution", "the finest level has 0.6 µm"),
    "no slide": (slide_object(SLIDE, TotalPixelMatrixRows=None), "unsupported", "no whole slide"),
    "focal planes": (
        level_object(frames_of_level(SLIDE, 64) * 2, 0.5, (256, 256)),
        "unsupported",
        "32 frames without positions, 16 would fill the slide",
    ),
    "focal planes of a sparse slide": (
        level_object([SLIDE[:64, :64]] * 2, 0.5, (256, 256), [(0, 0), (0, 0)]),
        "unsupported",
        "two frames lie at one place",
    ),
    "a concatenation": (slide_object(SLIDE, ConcatenationUID="1.2.9"), "unsupported", "a concatenation"),
    "off the grid": (
        level_object([SLIDE[:64, :64]] * 2, 0.5, (256, 256), [(0, 0), (60, 0)]),
        "unsupported",
        "no grid",
    ),
    "outside": (
        _groups(slide_object(SLIDE, kept=[0, 1]), lambda dataset: _move(dataset, 1, -31)),
        "unsupported",
        "no grid",
    ),
    "a frame without a place": (
        _groups(
            slide_object(SLIDE, kept=[0, 1]),
            lambda dataset: dataset.PerFrameFunctionalGroupsSequence[1].clear(),
        ),
        "no-geometry",
        "does not tell",
    ),
    "16 bits of colour": (slide_object(SLIDE.astype(np.uint16)), "unsupported", "3 samples of 16 bits"),
    "another modality": (slide_object(SLIDE, Modality="CT"), "wrong-modality", "CT"),
    "cut short": (slide_object(SLIDE)[:-5000], "truncated", ""),
    "more tiles than can be": (
        slide_object(SLIDE, 0.01, kept=[0], matrix=(2**31, 2**31)),
        "too-large",
        "the number of tiles",
    ),
}


@pytest.mark.parametrize("case", REFUSED)
def test_what_is_no_slide_is_refused_with_its_reason(case: str) -> None:
    content, reason, detail = REFUSED[case]
    refused = fault(content)
    assert refused.reason == reason
    assert detail in refused.detail


def test_a_slide_without_the_levels_between_is_refused() -> None:
    # 1024 pixels of 20 µm are 204,800 x 204,800 of 0.1 µm.
    refused = fault(slide_object(SLIDE, 0.1), mpp=20, size_px=1024)
    assert (refused.reason, "levels between are missing" in refused.detail) == ("slide-resolution", True)


@pytest.mark.parametrize("kind", ["LABEL", "OVERVIEW"])
def test_labels_are_no_examples_where_frames_are_taken(kind: str) -> None:
    with pytest.raises(DataFault) as caught:
        payload = Payload(format="dicom", name="x", contents=(slide_object(SLIDE, ImageType=flavor(kind)),))
        next(FORMATS["dicom"](payload, "SM"))
    assert caught.value.reason == "slide-label"


def picture(kind: str) -> bytes:
    buffer = BytesIO()
    Pictures.fromarray(SLIDE).save(buffer, kind)
    return buffer.getvalue()


def tiff(*pages: np.ndarray, **tags: Any) -> bytes:
    buffer = BytesIO()
    with tifffile.TiffWriter(buffer) as writer:
        for page in pages:
            writer.write(page, **{"photometric": "rgb", "metadata": None, **tags})
    return buffer.getvalue()


CM = {"resolution": (2e4, 2e4), "resolutionunit": "CENTIMETER"}
TIFFS: Mapping[str, tuple[bytes, str, str]] = {
    "a PNG": (picture("PNG"), "unsupported", "no TIFF"),
    "without tiles": (tiff(SLIDE, **CM), "unsupported", "without tiles"),
    "no resolution": (tiff(SLIDE, tile=(64, 64)), "slide-resolution", "micrometres"),
    "72 an inch": (
        tiff(SLIDE, tile=(64, 64), resolution=(72, 72), resolutionunit="INCH"),
        "slide-resolution",
        "micrometres",
    ),
    "too coarse": (
        tiff(SLIDE, tile=(64, 64), **(CM | {"resolution": (1e4, 1e4)})),
        "slide-resolution",
        "1 µm",
    ),
    "16 bits": (tiff(SLIDE.astype(np.uint16), tile=(64, 64), **CM), "unsupported", "3 samples of 16 bits"),
    "planes": (
        tiff(SLIDE.transpose(2, 0, 1), tile=(64, 64), planarconfig="SEPARATE", **CM),
        "unsupported",
        "dimensions",
    ),
    "cut short": (tiff(SLIDE, tile=(64, 64), **CM)[:-5000], "truncated", "the last tile"),
    "an endless chain": (tiff(SLIDE, SLIDE, tile=(64, 64), **CM)[:20_000], "truncated", "number"),
}


@pytest.mark.parametrize("case", TIFFS)
def test_what_is_no_slide_in_tiff_is_refused_with_its_reason(case: str) -> None:
    content, reason, detail = TIFFS[case]
    refused = fault(content, "tiff-slide")
    assert (refused.reason, detail in refused.detail) == (reason, True)


def test_a_slide_in_tiff_needs_a_patient() -> None:
    assert fault(tiff(SLIDE, tile=(64, 64), **CM), "tiff-slide", patient="").reason == "missing-identifier"


def test_tiles_that_tiff_leaves_out_are_background() -> None:
    data = bytearray(tiff(SLIDE, tile=(64, 64), **CM))
    counts = tifffile.TiffFile(BytesIO(bytes(data))).pages.first.tags["TileByteCounts"]
    at = counts.valueoffset + 5 * counts.valuebytecount // counts.count
    data[at : at + 2] = bytes(2)
    assert read(bytes(data), "tiff-slide").numbers == TISSUE_TILES[1:]


def test_the_memory_of_a_large_slide_is_that_of_a_few_frames() -> None:
    places = [(256 * n, 256 * n) for n in range(0, 156, 8)]
    frame = np.full((256, 256, 3), (180, 70, 140), np.uint8)
    # 40,000 x 40,000 pixels: 4.8 GB.
    data = level_object([frame] * len(places), 0.5, (40_000, 40_000), places, jpeg=True)
    level = SlideLevel(DicomFrames(open_object(data)))
    grid = slide_grid.TileGrid(level=level.reader.size, size_px=224, mpp=2.0)
    tracemalloc.start()
    try:
        cut = sum(level.cut(grid.box(tile)) is not None for tile in range(grid.count))
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert cut >= len(places)
    assert peak < 20 * 2**20


@pytest.mark.parametrize("codec", ["jpeg", "jpeg2000"])
def test_a_tile_whose_codestream_has_another_size_is_not_decoded(codec: str) -> None:
    data = bytearray(tiff(SLIDE, tile=(64, 64), compression=codec, **CM))
    page = tifffile.TiffFile(BytesIO(bytes(data))).pages.first
    start = page.dataoffsets[5]
    # Frame header of JPEG (T.81, B.2.2): marker, length, precision, then lines; SIZ of JPEG 2000 (T.800, A.5.1).
    at = data.index(b"\xff\xc0", start) + 5 if codec == "jpeg" else data.index(b"\xff\x51", start) + 10
    data[at : at + 2] = b"\x7f\xff"
    slide = read(bytes(data), "tiff-slide")
    assert slide.numbers == TISSUE_TILES[1:]
    assert slide.left_out["undecodable"].startswith("1 of 16 tiles, the first: the codestream of a tile has ")
