"""Reader of PNG, JPEG and TIFF: grey levels, and the reasons of refused files."""

import io
import struct
import zlib
from pathlib import Path
from typing import Any

import numpy as np
import PIL.Image
import pytest
import tifffile
from hypothesis import given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from imaging.errors import DataFault
from imaging.formats import grey_levels
from imaging.formats.picture import read_picture
from imaging.formats.tiff import LAYOUTS, count_pages
from imaging.image.image import Image
from imaging.image.instance import Instance
from imaging.image.window import IDENTITY, Window
from imaging.preprocess.slice import prepare
from imaging.preprocess.spec import PreprocessSpec
from imaging.sources.protocol import Payload

RANDOM = np.random.default_rng(0)
GREY = RANDOM.integers(0, 256, (20, 30), dtype=np.uint8)
DEEP = RANDOM.integers(0, 65536, (20, 30), dtype=np.uint16)
COLOUR = RANDOM.integers(0, 256, (20, 30, 3), dtype=np.uint8)
METADATA = (("patient", "P1"),)
Array = NDArray[Any]


def payload(content: bytes | Path, metadata: tuple[tuple[str, str], ...] = METADATA) -> Payload:
    return Payload(format="picture", name="d/a.png", contents=(content,), metadata=metadata)


def frames(content: bytes | Path) -> list[Instance]:
    return list(read_picture(payload(content), "OT"))


def image(content: bytes | Path) -> Image:
    (result,) = frames(content)
    return result.image


def fault(content: bytes) -> DataFault:
    with pytest.raises(DataFault) as caught:
        frames(content)
    return caught.value


def saved(pixels: Array | PIL.Image.Image, kind: str = "PNG", **options: Any) -> bytes:
    made = io.BytesIO()
    picture = pixels if isinstance(pixels, PIL.Image.Image) else PIL.Image.fromarray(pixels)
    picture.save(made, kind, **options)
    return made.getvalue()


def tiff(pixels: Array, **options: Any) -> bytes:
    made = io.BytesIO()
    tifffile.imwrite(made, pixels, **options)
    return made.getvalue()


def luma(colour: Array) -> Array:
    return np.asarray(PIL.Image.fromarray(colour).convert("L"))


def png(*chunks: tuple[bytes, bytes]) -> bytes:
    made = b"\x89PNG\r\n\x1a\n"
    for name, content in chunks:
        made += struct.pack(">I", len(content)) + name + content
        made += struct.pack(">I", zlib.crc32(name + content))
    return made


def test_grey_stays_as_it_is() -> None:
    result = image(saved(GREY))
    np.testing.assert_array_equal(result.stored, GREY)
    assert result.vois == (IDENTITY,)


def test_sixteen_bits_stay_and_are_shown_over_their_full_range() -> None:
    result = image(saved(DEEP))
    np.testing.assert_array_equal(result.stored, DEEP)
    shown = result.vois[0].show(np.array([0, 65535], np.float32))
    np.testing.assert_array_equal(shown, [0, 1])


def test_one_bit_is_black_and_white() -> None:
    result = image(saved(PIL.Image.fromarray(GREY).convert("1", dither=PIL.Image.Dither.NONE)))
    np.testing.assert_array_equal(result.stored, np.where(GREY > 127, 255, 0))


def test_colour_becomes_luma() -> None:
    np.testing.assert_array_equal(image(saved(COLOUR)).stored, luma(COLOUR))


def test_a_palette_is_looked_up() -> None:
    picture = PIL.Image.fromarray(COLOUR).quantize(16)
    expected = np.asarray(picture.convert("RGB").convert("L"))
    np.testing.assert_array_equal(image(saved(picture)).stored, expected)


def test_what_is_transparent_is_black() -> None:
    alpha = np.where(GREY > 127, 255, 0).astype(np.uint8)
    result = image(saved(np.dstack([COLOUR, alpha])))
    np.testing.assert_array_equal(result.stored, np.where(alpha > 0, luma(COLOUR), 0))


def test_grey_with_alpha_is_grey() -> None:
    picture = PIL.Image.merge("LA", [PIL.Image.fromarray(GREY), PIL.Image.new("L", (30, 20), 255)])
    np.testing.assert_array_equal(image(saved(picture)).stored, GREY)


@pytest.mark.parametrize("options", [{}, {"progressive": True}, {"subsampling": 0}])
def test_a_jpeg_is_what_pillow_shows(options: dict[str, Any]) -> None:
    data = saved(COLOUR, "JPEG", **options)
    np.testing.assert_array_equal(image(data).stored, luma(np.asarray(PIL.Image.open(io.BytesIO(data)))))


def test_a_jpeg_for_print_is_read() -> None:
    data = saved(PIL.Image.fromarray(COLOUR).convert("CMYK"), "JPEG", quality=95)
    assert abs(image(data).stored.astype(int).mean() - luma(COLOUR).mean()) < 10


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("kind", ["PNG", "JPEG", "TIFF"])
def test_the_orientation_is_applied(kind: str, orientation: int) -> None:
    ramp = np.repeat(np.repeat(np.arange(6, dtype=np.uint8).reshape(2, 3) * 40, 16, 0), 16, 1)
    exif = PIL.Image.Exif()
    exif[grey_levels.ORIENTATION] = orientation
    data = saved(ramp, kind, exif=exif)
    expected = np.asarray(PIL.ImageOps.exif_transpose(PIL.Image.open(io.BytesIO(data))))
    np.testing.assert_array_equal(image(data).stored, expected)


def test_an_orientation_that_is_none_is_left() -> None:
    exif = PIL.Image.Exif()
    exif[grey_levels.ORIENTATION] = 77
    np.testing.assert_array_equal(image(saved(GREY, exif=exif)).stored, GREY)


def test_the_suffix_does_not_matter() -> None:
    np.testing.assert_array_equal(image(tiff(DEEP)).stored, DEEP)


def test_a_path_is_read_like_bytes(tmp_path: Path) -> None:
    (tmp_path / "a.png").write_bytes(saved(GREY))
    assert frames(tmp_path / "a.png")[0].content_blake3 == frames(saved(GREY))[0].content_blake3


def test_a_picture_has_its_name_and_the_patient_of_the_metadata() -> None:
    (result,) = frames(saved(GREY))
    assert (
        result.patient_id,
        result.study_uid,
        result.series_uid,
        result.sop_instance_uid,
        result.frame,
    ) == (
        *("P1", "d/a.png", "d/a.png", "d/a.png"),
        0,
    )
    assert result.attributes == {"modality": "OT", "rows": 20, "columns": 30}


def test_without_a_patient_a_picture_is_refused() -> None:
    with pytest.raises(DataFault) as caught:
        list(read_picture(payload(saved(GREY), ()), "OT"))
    assert caught.value.reason == "missing-identifier"


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"compression": "zlib", "predictor": True},
        {"compression": "lzw"},
        {"compression": "packbits"},
        {"tile": (16, 16), "compression": "zlib"},
        {"bigtiff": True},
        {"byteorder": ">"},
    ],
)
@pytest.mark.parametrize("pixels", [GREY, DEEP, DEEP.astype(np.int16)], ids=["8", "16", "signed"])
def test_a_tiff_stays_as_it_is(pixels: Array, options: dict[str, Any]) -> None:
    np.testing.assert_array_equal(image(tiff(pixels, **options)).stored, pixels)


@pytest.mark.parametrize("pixels", [GREY, DEEP, (DEEP - 2**15).astype(np.int16)])
def test_a_tiff_is_shown_over_its_full_range(pixels: Array) -> None:
    limits = np.iinfo(pixels.dtype)
    (voi,) = image(tiff(pixels)).vois
    np.testing.assert_array_equal(voi.show(np.array([limits.min, limits.max], np.float32)), [0, 1])


def test_a_tiff_of_real_numbers_has_no_window() -> None:
    result = image(tiff(GREY.astype(np.float32) / 7))
    assert (result.vois, result.stored.dtype) == ((), np.float32)


def test_a_tiff_that_is_white_at_zero_is_inverted() -> None:
    assert image(tiff(GREY, photometric="miniswhite")).inverted
    assert not image(tiff(GREY)).inverted


@pytest.mark.parametrize("planar", ["contig", "separate"])
def test_a_tiff_in_colour_becomes_luma(planar: str) -> None:
    pixels = COLOUR if planar == "contig" else np.moveaxis(COLOUR, 2, 0)
    result = image(tiff(pixels, photometric="rgb", planarconfig=planar))
    np.testing.assert_array_equal(result.stored, luma(COLOUR))


def test_deep_colour_stays_deep() -> None:
    result = image(tiff(np.dstack([DEEP, DEEP, DEEP]), photometric="rgb"))
    np.testing.assert_array_equal(result.stored, DEEP)


def test_a_tiff_with_a_palette_is_looked_up() -> None:
    picture = PIL.Image.fromarray(COLOUR).quantize(16)
    result = image(saved(picture, "TIFF"))
    expected = np.asarray(picture.convert("RGB").convert("L"))
    assert np.abs((result.stored >> 8).astype(int) - expected).max() <= 1


def test_a_tiff_of_one_bit_is_black_and_white() -> None:
    picture = PIL.Image.fromarray(GREY).convert("1", dither=PIL.Image.Dither.NONE)
    result = image(saved(picture, "TIFF", compression="group4"))
    np.testing.assert_array_equal(result.stored, np.where(GREY > 127, 255, 0))


def test_jpeg_in_tiff_is_what_pillow_shows() -> None:
    data = tiff(COLOUR, photometric="ycbcr", compression="jpeg")
    expected = luma(np.asarray(PIL.Image.open(io.BytesIO(data)).convert("RGB")))
    assert np.abs(image(data).stored.astype(int) - expected).max() <= 1


def test_pages_are_frames() -> None:
    pages = [GREY, GREY[::-1], GREY // 2]
    result = frames(tiff(np.stack(pages), photometric="minisblack"))
    assert [one.frame for one in result] == [1, 2, 3]
    for one, page in zip(result, pages, strict=True):
        np.testing.assert_array_equal(one.image.stored, page)


def test_a_pyramid_is_unsupported() -> None:
    made = io.BytesIO()
    with tifffile.TiffWriter(made) as writer:
        writer.write(np.tile(GREY, (4, 4)), subifds=1, tile=(16, 16))
        writer.write(np.tile(GREY, (2, 2)), subfiletype=1, tile=(16, 16))
    assert fault(made.getvalue()).reason == "unsupported"


def test_a_reduced_page_is_unsupported() -> None:
    assert fault(tiff(GREY, subfiletype=1)).reason == "unsupported"


def test_a_volume_in_one_page_is_unsupported() -> None:
    assert fault(tiff(np.stack([GREY] * 16), volumetric=True, tile=(16, 16, 16))).reason == "unsupported"


@pytest.mark.parametrize("pixels", [GREY.astype(np.complex64), GREY.astype(np.float32) * np.nan])
def test_values_that_are_no_numbers_are_refused(pixels: Array) -> None:
    assert fault(tiff(pixels)).reason in ("unsupported", "undecodable")


def test_a_stack_of_imagej_that_lacks_its_pages_is_unsupported() -> None:
    data = tiff(np.stack([GREY] * 3), imagej=True)
    assert len(frames(data)) == 3
    assert fault(data.replace(b"images=3", b"images=9")).reason == "unsupported"


def test_an_animation_is_unsupported() -> None:
    data = saved(GREY, save_all=True, append_images=[PIL.Image.fromarray(GREY[::-1].copy())])
    assert fault(data).reason == "unsupported"


@pytest.mark.parametrize(("columns", "rows"), [(60_000, 60_000), (70_000, 1), (12_000, 12_000), (9500, 9500)])
def test_a_picture_over_the_limits_is_refused_before_it_is_decoded(columns: int, rows: int) -> None:
    header = struct.pack(">IIBBBBB", columns, rows, 8, 0, 0, 0, 0)
    data = png((b"IHDR", header), (b"IDAT", zlib.compress(b"\0")), (b"IEND", b""))
    assert fault(data).reason == "too-large"


def test_a_tiff_over_the_limits_is_refused_before_it_is_decoded() -> None:
    data = bytearray(tiff(GREY))
    with tifffile.TiffFile(io.BytesIO(data)) as opened:
        for tag in ("ImageWidth", "ImageLength"):
            value = opened.pages.first.tags[tag]
            struct.pack_into("<H" if value.dtype == 3 else "<I", data, value.valueoffset, 60_000)
    assert fault(bytes(data)).reason == "too-large"


def test_a_file_that_is_no_picture_has_its_reason() -> None:
    assert fault(b"MUSTERMANN").reason == "unreadable"


def test_a_format_that_nobody_asked_for_is_not_decoded() -> None:
    assert fault(saved(GREY, "GIF")).reason == "unreadable"


def test_a_tiff_without_pages_is_refused() -> None:
    assert fault(b"II*\0" + bytes(4)).reason == "no-pixels"


def test_a_chain_of_pages_that_leads_back_ends() -> None:
    data = bytearray(tiff(GREY))
    with tifffile.TiffFile(io.BytesIO(data)) as opened:
        page = opened.pages.first
        struct.pack_into("<I", data, page.offset + 2 + 12 * len(page.tags), page.offset)
    assert fault(bytes(data)).reason == "too-large"


def test_a_page_that_tifffile_leaves_out_is_not_lost_in_silence() -> None:
    data = bytearray(tiff(GREY))
    with tifffile.TiffFile(io.BytesIO(data)) as opened:
        page = opened.pages.first
        struct.pack_into("<I", data, page.offset + 2 + 12 * len(page.tags), len(data))
    entries = 5000  # more than it believes
    assert fault(bytes(data) + struct.pack("<H", entries) + bytes(12 * entries + 4)).reason == "undecodable"


def test_a_tiff_whose_pixels_lie_behind_its_end_is_truncated() -> None:
    data = tiff(DEEP, compression="zlib")
    assert fault(data[:-5]).reason == "truncated"


@pytest.mark.parametrize("kind", ["JPEG", "PNG"])
@pytest.mark.parametrize("share", [0.5, 0.7, 0.9])
def test_a_picture_filled_up_with_zeros_is_no_picture(kind: str, share: float) -> None:
    data = saved(RANDOM.integers(0, 256, (64, 64, 3), dtype=np.uint8), kind)
    kept = int(share * len(data))
    assert fault(data[:kept] + bytes(len(data) - kept)).reason in ("truncated", "undecodable")


@pytest.mark.parametrize("options", [{}, {"bigtiff": True}, {"byteorder": ">"}])
def test_pages_are_counted_in_every_layout(options: dict[str, Any]) -> None:
    data = tiff(np.stack([GREY] * 3), photometric="minisblack", **options)
    assert data[:4] in LAYOUTS
    assert count_pages(data) == 3


WHOLE = {
    "png": saved(GREY),
    "deep png": saved(DEEP),
    "jpeg": saved(GREY, "JPEG"),
    "progressive": saved(COLOUR, "JPEG", progressive=True),
    "tiff": tiff(DEEP),
    "zlib": tiff(DEEP, compression="zlib"),
    "pages": tiff(np.stack([GREY] * 3), photometric="minisblack"),
    "table last": saved(PIL.Image.fromarray(GREY).convert("1"), "TIFF", compression="group4"),
}
PIXELS = {name: [one.image.stored.tobytes() for one in frames(data)] for name, data in WHOLE.items()}


@hypothesis_settings(max_examples=300)
@given(name=st.sampled_from(sorted(WHOLE)), share=st.floats(0, 1, exclude_max=True))
def test_a_picture_cut_anywhere_is_whole_or_a_fault(name: str, share: float) -> None:
    try:
        result = frames(WHOLE[name][: int(share * len(WHOLE[name]))])
    except DataFault as bad:
        assert bad.reason in ("truncated", "unreadable", "undecodable")
    else:
        assert [one.image.stored.tobytes() for one in result] == PIXELS[name]


@pytest.mark.slow
@hypothesis_settings(max_examples=300)
@given(
    name=st.sampled_from(sorted(WHOLE)),
    changes=st.lists(
        st.tuples(st.floats(0, 1, exclude_max=True), st.integers(0, 255)), min_size=1, max_size=8
    ),
)
def test_a_picture_changed_anywhere_is_read_or_a_fault(name: str, changes: list[tuple[float, int]]) -> None:
    data = bytearray(WHOLE[name])
    for share, value in changes:
        data[int(share * len(data))] = value
    try:
        assert frames(bytes(data))
    except DataFault as bad:
        assert bad.reason


TWELVE = (DEEP >> 4).astype(np.uint16)


@pytest.mark.parametrize(
    ("content", "findings"),
    [
        (saved(PIL.Image.fromarray(TWELVE)), ("dark-picture",)),
        (tiff(TWELVE), ("dark-picture",)),
        (tiff((DEEP >> 6).astype(np.uint16)), ("dark-picture",)),
        (tiff(np.stack([TWELVE] * 3, -1), photometric="rgb"), ("dark-picture",)),
        # What fills its bits, or has them stated, is shown as it should be.
        (saved(PIL.Image.fromarray(DEEP)), ()),
        (tiff(DEEP), ()),
        (tiff(TWELVE.astype(np.int16)), ()),
        (saved(GREY), ()),
        (tiff(GREY), ()),
    ],
)
def test_a_picture_of_16_bits_that_uses_12_is_a_finding(content: bytes, findings: tuple[str, ...]) -> None:
    assert [one.findings for one in frames(content)] == [findings]


def test_pictures_of_16_bits_are_all_shown_alike() -> None:
    # PNG (3rd edition, 11.3.2.6) has sBIT speak of levels that were stretched to 16 bits, so it changes nothing here;
    # and a window from the largest value would show two pictures of one series differently.
    bright, dark = (image(saved(PIL.Image.fromarray((TWELVE // part).astype(np.uint16)))) for part in (1, 8))
    assert bright.vois == dark.vois
    spec = PreprocessSpec(modality="OT", window=Window(center=2048, width=4096), size_px=32)
    levels = [prepare(one, spec).astype(int) for one in (bright, dark)]
    np.testing.assert_allclose(levels[0] / 8, levels[1], 0, 1)
    assert levels[0].max() > 240
