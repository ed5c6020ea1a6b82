"""Transforms of stored values: they agree with the formulas of PS3.3 C.11, written out here."""

from io import BytesIO
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from pydicom import dcmread
from pydicom.dataelem import RawDataElement
from pydicom.dataset import Dataset
from pydicom.pixels import apply_voi_lut
from pydicom.pixels.processing import apply_modality_lut
from pydicom.sequence import Sequence
from pydicom.tag import Tag
from pydicom.uid import (
    CTImageStorage,
    DigitalXRayImageStorageForPresentation,
    EnhancedXAImageStorage,
    ExplicitVRBigEndian,
    ExplicitVRLittleEndian,
    ImplicitVRLittleEndian,
)

from imaging.errors import DataFault
from imaging.formats.dicom import read_dicom
from imaging.image.window import Lut, Sigmoid, Window
from imaging.preprocess.slice import prepare
from imaging.preprocess.spec import PreprocessSpec
from tests.dicom_objects import dataset, fault, file_bytes, image, images, made, ramp
from tests.shown import FILE, STORED, shown, table


def linear(x: NDArray[Any], c: float, w: float) -> NDArray[np.float64]:
    """PS3.3 C.11.2.1.2.1."""
    y = ((x - (c - 0.5)) / (w - 1) + 0.5) * 255
    return np.where(x <= c - 0.5 - (w - 1) / 2, 0, np.where(x > c - 0.5 + (w - 1) / 2, 255, y))


def linear_exact(x: NDArray[Any], c: float, w: float) -> NDArray[np.float64]:
    """PS3.3 C.11.2.1.3.2."""
    return np.where(x <= c - w / 2, 0, np.where(x > c + w / 2, 255, ((x - c) / w + 0.5) * 255))


def sigmoid(x: NDArray[Any], c: float, w: float) -> NDArray[np.float64]:
    """PS3.3 C.11.2.1.3.1."""
    return np.asarray(255 / (1 + np.exp(-4 * (x - c) / w)))


@pytest.mark.parametrize(
    ("function", "formula"), [("LINEAR", linear), ("LINEAR_EXACT", linear_exact), ("SIGMOID", sigmoid)]
)
@pytest.mark.parametrize(("center", "width"), [(40, 400), (300.5, 1500), (0, 2), (-1000, 77)])
def test_a_window_shows_values_as_in_the_standard(
    function: str, formula: Any, center: float, width: float
) -> None:
    data = made(STORED, WindowCenter=center, WindowWidth=width, VOILUTFunction=function)
    np.testing.assert_allclose(shown(data), formula(STORED.astype(float), center, width), 0, 0.51)


@pytest.mark.parametrize("function", ["LINEAR", "LINEAR_EXACT", "SIGMOID"])
def test_a_window_shows_what_pydicom_shows(function: str) -> None:
    data = made(
        STORED,
        WindowCenter=40,
        WindowWidth=400,
        VOILUTFunction=function,
        RescaleSlope=1,
        RescaleIntercept=-24,
    )
    one = dcmread(BytesIO(data))
    expected = apply_voi_lut(apply_modality_lut(one.pixel_array, one), one)
    scaled = (expected - expected.min()) / np.ptp(expected) * 255
    if function == "SIGMOID":
        low, high = -(2**15), 2**15 - 1
        scaled = (expected - low) / (high - low) * 255
    np.testing.assert_allclose(shown(data), scaled, 0, 1)


def test_a_window_without_function_is_linear() -> None:
    with_name = made(STORED, WindowCenter=40, WindowWidth=400, VOILUTFunction="LINEAR")
    np.testing.assert_array_equal(shown(made(STORED, WindowCenter=40, WindowWidth=400)), shown(with_name))


def test_the_spec_chooses_among_several_windows() -> None:
    data = made(STORED, WindowCenter=[40, -600], WindowWidth=[400, 1500])
    np.testing.assert_allclose(shown(data, 2), linear(STORED.astype(float), -600, 1500), 0, 0.51)


def test_tables_come_before_windows() -> None:
    luts = table([0, 65535], 0, 16)
    luts.extend(table([65535, 0], 0, 16))
    result = image(made(STORED, VOILUTSequence=luts, WindowCenter=40, WindowWidth=400)).vois
    assert [type(voi) for voi in result] == [Lut, Lut, Window]


def test_a_window_that_nobody_asked_for_is_a_fault() -> None:
    with pytest.raises(DataFault, match="number 3"):
        shown(made(STORED, WindowCenter=[40, -600], WindowWidth=[400, 1500]), 3)


@pytest.mark.parametrize("width", [0, -5, 1e31, 0.5])
def test_a_window_that_cannot_be_keeps_its_place(width: float) -> None:
    data = made(STORED, WindowCenter=[40, 100], WindowWidth=[width, 50])
    np.testing.assert_allclose(shown(data, 2), linear(STORED.astype(float), 100, 50), 0, 0.51)
    with pytest.raises(
        DataFault, match="number 1 of the file's 2 windows cannot be used: value 1 of WindowWidth"
    ):
        shown(data)


def windows(center: bytes, width: bytes, syntax: str = ExplicitVRLittleEndian, **changes: Any) -> bytes:
    """Return a file with a Window Center and Width of these bytes."""
    one = dataset(STORED, **changes)
    for tag, value in ((0x00281050, center), (0x00281051, width)):
        implicit = syntax == ImplicitVRLittleEndian
        one[tag] = RawDataElement(Tag(tag), "DS", len(value), value, 0, implicit, True)
    return file_bytes(one, syntax)


@pytest.mark.parametrize("syntax", [ExplicitVRLittleEndian, ImplicitVRLittleEndian])
@pytest.mark.parametrize("tables", [0, 1], ids=["walk", "pydicom"])
@pytest.mark.parametrize(
    ("center", "width", "number", "expected"),
    [
        # A value of several may be empty (PS3.5 6.4): the other places keep their meaning.
        (b"128\\", b"256 ", 1, (128, 256)),
        (b"\\128", b"10\\256 ", 2, (128, 256)),
        (b"12,5\\128 ", b"10\\256 ", 2, (128, 256)),
        (b"wide\\128 ", b"10\\256 ", 2, (128, 256)),
        (b"nan\\1_0\\128 ", b"1\\1\\256", 3, (128, 256)),
        (b"40\\128 ", b"inf\\256 ", 2, (128, 256)),
        (b"128\\40 ", b"256 ", 1, (128, 256)),
        (b"128,5 ", b"256 ", 1, "value 1 of WindowCenter is empty or no number"),
        (b"128 ", b"25,6", 1, "value 1 of WindowWidth is empty or no number"),
        (b"128\\", b"256 ", 2, "value 2 of WindowCenter is empty or no number"),
        (b"128\\40 ", b"256 ", 2, "WindowWidth has no value 2"),
        (b"128 ", b"256\\40 ", 2, "WindowCenter has no value 2"),
        (b"128 ", b"", 1, "WindowWidth has no value 1"),
        (b"128 ", b"2e30", 1, "the limit is 1e\\+30"),
    ],
)
def test_windows_count_as_in_the_file(
    center: bytes, width: bytes, number: int, expected: Any, syntax: str, tables: int
) -> None:
    # An item of a palette's sequence has pydicom read the header.
    changes = {"PerFrameFunctionalGroupsSequence": Sequence([Dataset()])} if tables else {}
    data = windows(center, width, syntax, **changes)
    if isinstance(expected, str):
        with pytest.raises(DataFault, match=expected) as caught:
            shown(data, number)
        assert caught.value.reason == "no-window"
    else:
        np.testing.assert_allclose(shown(data, number), linear(STORED.astype(float), *expected), 0, 0.51)


def test_an_unusable_window_is_a_finding() -> None:
    assert [one.findings for one in read_dicom(windows(b"128\\", b"256 "), "CT")] == [("unusable-window",)]
    assert [one.findings for one in read_dicom(windows(b"128 ", b"256 "), "CT")] == [()]


def test_a_function_of_another_name_leaves_its_windows_in_their_places() -> None:
    luts = table([0, 65535], 0, 16)
    data = made(STORED, VOILUTSequence=luts, WindowCenter=1, WindowWidth=9, VOILUTFunction="CUBIC")
    shown(data)
    with pytest.raises(DataFault, match="VOILUTFunction is none of LINEAR, LINEAR_EXACT, SIGMOID"):
        shown(data, 2)


@pytest.mark.parametrize("center", [128, 127.7, -1024, 0.5])
def test_a_window_of_width_1_is_a_threshold(center: float) -> None:
    # PS3.3 C.11.2.1.2.1: x <= c - 0.5 is black, x > c - 0.5 is white; note 5 calls it a threshold.
    data = made(STORED, WindowCenter=center, WindowWidth=1)
    np.testing.assert_array_equal(shown(data), np.where(center - 0.5 < STORED, 255, 0))


@pytest.mark.parametrize("function", ["LINEAR_EXACT", "SIGMOID"])
def test_a_window_too_narrow_for_its_numbers_is_a_threshold(function: str) -> None:
    # The limit of C.11.2.1.3.1 and C.11.2.1.3.2 for a width of nothing.
    data = made(STORED, WindowCenter=5, WindowWidth="1e-40", VOILUTFunction=function)
    with np.errstate(all="raise"):
        np.testing.assert_array_equal(shown(data), np.where(STORED > 5, 255, 0))


def test_a_threshold_is_turned_over_like_a_window() -> None:
    one = made(STORED, WindowCenter=40, WindowWidth=1, PhotometricInterpretation="MONOCHROME1")
    np.testing.assert_array_equal(shown(one), np.where(STORED > 39.5, 0, 255))


def test_a_sigmoid_is_kept_as_one() -> None:
    data = made(STORED, WindowCenter=40, WindowWidth=400, VOILUTFunction="SIGMOID")
    assert image(data).vois == (Sigmoid(40.0, 400.0),)


@pytest.mark.parametrize("syntax", [ExplicitVRLittleEndian, ImplicitVRLittleEndian])
@pytest.mark.parametrize("vr", ["US", "OW"])
@pytest.mark.parametrize("bits", [8, 12, 16])
@pytest.mark.parametrize("first", [0, 100, -1024])
def test_a_voi_table_is_looked_up(syntax: str, vr: str, bits: int, first: int) -> None:
    entries = np.linspace(0, 2**bits - 1, 512).astype(int)[::-1]
    data = made(STORED, syntax, VOILUTSequence=table(entries, first, bits, vr))
    expected = entries[np.clip(STORED.astype(int) - first, 0, 511)] / (2**bits - 1) * 255
    np.testing.assert_allclose(shown(data), expected, 0, 0.51)


def test_a_negative_first_value_may_be_written_without_its_sign() -> None:
    entries = np.arange(4096)
    unsigned = table(entries, 65536 - 1024, 12)
    data = made(STORED, VOILUTSequence=unsigned)
    np.testing.assert_allclose(shown(data), np.clip(STORED + 1024, 0, 4095) / 4095 * 255, 0, 0.51)


def test_a_first_value_is_negative_where_the_intercept_is() -> None:
    stored = (STORED + 1024).astype(np.uint16)
    luts = table(np.arange(4096), 65536 - 1024, 12)
    data = made(stored, RescaleSlope=1, RescaleIntercept=-1024, VOILUTSequence=luts)
    np.testing.assert_allclose(shown(data), np.clip(stored, 0, 4095) / 4095 * 255, 0, 0.51)


@pytest.mark.parametrize(
    ("kind", "slope", "intercept", "first"),
    [
        # PS3.3 C.11.2.1.1: signed "if the possible output range after application of the Rescale Slope and Intercept
        # may be signed", else as Pixel Representation, or unsigned.
        (np.uint16, -1, 0, -255),
        (np.uint16, -1, 100, -155),
        (np.uint16, -0.5, 20, -100),
        (np.int16, -1, 0, -255),
        (np.uint16, 1, -1024, -1024),
        (np.int16, 1, 32768, 32768),
        (np.uint16, -1, 65535, 65280),
        (np.uint16, 200, 0, 40000),
    ],
)
@pytest.mark.parametrize("vr", ["US", "SS"])
def test_a_first_value_is_signed_where_rescaled_values_can_be_negative(
    kind: Any, slope: float, intercept: float, first: int, vr: str
) -> None:
    stored = np.arange(256).astype(kind).reshape(16, 16)
    luts = table(np.arange(2048) * 8, first % 65536, 14)
    written = first % 65536 if vr == "US" else (first + 32768) % 65536 - 32768
    luts[0].add_new("LUTDescriptor", vr, [2048, written, 14])
    data = made(stored, RescaleSlope=slope, RescaleIntercept=intercept, VOILUTSequence=luts)
    levels = np.clip(np.rint(stored * float(slope) + intercept) - first, 0, 2047) * 8 / (2**14 - 1) * 255
    np.testing.assert_allclose(shown(data), levels, 0, 0.51)


def test_the_sign_of_a_first_value_is_that_of_its_frame() -> None:
    groups = []
    for slope in (1, -1):
        scale, voi, own = Dataset(), Dataset(), Dataset()
        scale.RescaleSlope, scale.RescaleIntercept = slope, 0
        voi.VOILUTSequence = table(np.arange(256), 65536 - 255, 8)
        own.PixelValueTransformationSequence, own.FrameVOILUTSequence = Sequence([scale]), Sequence([voi])
        groups.append(own)
    stored = np.stack([ramp((16, 16), np.uint8)] * 2)
    data = made(stored, PerFrameFunctionalGroupsSequence=Sequence(groups))
    vois = [one.vois[0] for one in images(data)]
    assert [voi.first for voi in vois if isinstance(voi, Lut)] == [65281, -255]


def test_a_large_first_value_of_unsigned_pixels_stays_large() -> None:
    stored = (np.arange(256) + 40000).astype(np.uint16).reshape(16, 16)
    data = made(stored, VOILUTSequence=table(np.arange(256) * 257, 40000, 16))
    np.testing.assert_allclose(shown(data), np.arange(256).reshape(16, 16), 0, 0.51)


@pytest.mark.parametrize("vr", ["OW", "US"])
def test_a_count_of_zero_is_65536(vr: str) -> None:
    stored = (np.arange(256) * 257).astype(np.uint16).reshape(16, 16)
    data = made(stored, VOILUTSequence=table(np.arange(65536)[::-1], 0, 16, "OW", count=0))
    np.testing.assert_allclose(shown(data), 255 - np.arange(256).reshape(16, 16), 0, 0.51)


@pytest.mark.parametrize("vr", ["OW", "US"])
def test_entries_of_one_byte_may_share_a_word(vr: str) -> None:
    packed = np.arange(256, dtype=np.uint8)[::-1].copy().view("<u2")
    stored = ramp((16, 16), np.uint8)
    data = made(stored, VOILUTSequence=table(packed, 0, 8, vr, count=256))
    np.testing.assert_array_equal(shown(data), 255 - stored)


def test_a_table_is_read_most_significant_byte_first_where_the_file_is() -> None:
    stored = ramp((16, 16), np.uint8)
    one = dataset(
        stored, VOILUTSequence=table((np.arange(256) * 257)[::-1].astype(np.uint16).byteswap(), 0, 16, "OW")
    )
    one.PixelData = stored.tobytes()
    np.testing.assert_allclose(shown(file_bytes(one, ExplicitVRBigEndian)), 255 - stored, 0, 0.51)


def test_entries_beyond_their_bits_do_not_wrap_around() -> None:
    data = made(STORED, VOILUTSequence=table(np.arange(4096), 0, 8))
    assert (np.diff(shown(data).ravel().astype(int)) >= 0).all()
    assert shown(data).max() < 256


def damaged_table(kind: str) -> Sequence:
    if kind == "few entries":
        return table([1, 2], 0, 16, count=99)
    item = Dataset()
    if kind == "one number":
        item.LUTDescriptor = [1]
    if kind == "no data":
        item.LUTDescriptor = [2, 0, 16]
    return Sequence([item])


DAMAGED = {
    "few entries": "LUTData has 4 entries, 99 are needed",
    "one number": "LUTDescriptor is missing or not three whole numbers",
    "no data": "LUTData is missing or holds no whole numbers",
    "empty item": "LUTDescriptor is missing or not three whole numbers",
}


@pytest.mark.parametrize("kind", DAMAGED)
def test_a_damaged_voi_table_is_no_harm_where_it_is_not_asked_for(kind: str) -> None:
    data = made(STORED, VOILUTSequence=damaged_table(kind), WindowCenter=40, WindowWidth=400)
    np.testing.assert_allclose(shown(data, 2), linear(STORED.astype(float), 40, 400), 0, 0.51)
    assert prepare(image(data), PreprocessSpec(size_px=16)).max() == 255
    with pytest.raises(DataFault, match=f"{DAMAGED[kind]}, in an item of VOILUTSequence") as caught:
        shown(data, 1)
    assert caught.value.reason == "no-window"


@pytest.mark.parametrize("kind", DAMAGED)
def test_a_damaged_modality_table_is_a_fault_with_its_detail(kind: str) -> None:
    assert fault(made(STORED, ModalityLUTSequence=damaged_table(kind))).args == ("undecodable", DAMAGED[kind])


def test_an_empty_sequence_of_tables_is_none() -> None:
    changes = {"ModalityLUTSequence": Sequence([]), "VOILUTSequence": Sequence([]), "RescaleSlope": 2}
    result = image(made(STORED, WindowCenter=40, WindowWidth=400, **changes))
    assert (result.slope, result.vois) == (2, (Window(center=40, width=400),))


XA, XRF, BI_PLANE = (f"1.2.840.10008.5.1.4.1.1.12.{n}" for n in (1, 2, 3))
BEAM: list[dict[str, Any]] = [
    {"ModalityLUTSequence": table(np.arange(256) ** 2, 0, 16)},
    {"RescaleSlope": 3, "RescaleIntercept": -7},
]


@pytest.mark.parametrize("beam", BEAM, ids=["table", "rescale"])
@pytest.mark.parametrize("relationship", ["LIN", "LOG", "DISP"])
@pytest.mark.parametrize(("sop_class", "modality"), [(XA, "XA"), (XRF, "RF"), (BI_PLANE, "XA")])
def test_the_window_of_an_angiogram_is_one_of_its_stored_values(
    sop_class: str, modality: str, relationship: str, beam: dict[str, Any]
) -> None:
    # PS3.3 C.8.7.1.1.2; dcmtk (dimomod.cc) and fo-dicom (issue 1442) do so for these classes, dcm4che (issue 688) for
    # LOG and DISP.
    stored = ramp((16, 16), np.uint8)
    data = made(
        stored,
        SOPClassUID=sop_class,
        Modality=modality,
        PixelIntensityRelationship=relationship,
        WindowCenter=128,
        WindowWidth=256,
        **beam,
    )
    (result,) = images(data, modality)
    np.testing.assert_array_equal(prepare(result, FILE), stored)


@pytest.mark.parametrize(
    "changes",
    [
        {"SOPClassUID": XA, "Modality": "XA"},
        {"SOPClassUID": CTImageStorage, "PixelIntensityRelationship": "LOG"},
        {"SOPClassUID": EnhancedXAImageStorage, "Modality": "XA", "PixelIntensityRelationship": "LOG"},
        {"SOPClassUID": DigitalXRayImageStorageForPresentation, "PixelIntensityRelationship": "LIN"},
    ],
    ids=["no relationship", "CT", "enhanced", "DX"],
)
@pytest.mark.parametrize("beam", BEAM, ids=["table", "rescale"])
def test_any_other_object_has_its_modality_transform(changes: dict[str, Any], beam: dict[str, Any]) -> None:
    stored = ramp((16, 16), np.uint8)
    (result,) = images(made(stored, **changes, **beam), changes.get("Modality", "CT"))
    table_of = np.arange(256) ** 2 if "ModalityLUTSequence" in beam else np.arange(256) * 3 - 7
    np.testing.assert_array_equal(result.values, table_of[stored])


def test_a_table_that_is_not_for_display_may_be_damaged() -> None:
    changes = {"SOPClassUID": XA, "PixelIntensityRelationship": "LOG"}
    data = made(STORED, ModalityLUTSequence=damaged_table("empty item"), **changes)
    np.testing.assert_array_equal(image(data).values, STORED)


def test_a_modality_table_goes_before_everything() -> None:
    stored = ramp((16, 16), np.uint8)
    entries = (np.arange(256) * 10)[::-1]
    data = made(
        stored, ModalityLUTSequence=table(entries, 0, 16), RescaleSlope=7, WindowCenter=1275, WindowWidth=2551
    )
    np.testing.assert_array_equal(image(data).values, entries[stored])
    np.testing.assert_array_equal(image(data).values, apply_modality_lut(stored, dcmread(BytesIO(data))))
    np.testing.assert_allclose(shown(data), 255 - stored, 0, 0.51)


def test_a_modality_table_of_signed_pixels_begins_below_zero() -> None:
    data = made(STORED, ModalityLUTSequence=table(np.arange(4096), 65536 - 1024, 16))
    np.testing.assert_array_equal(image(data).values, STORED + 1024)


def test_tables_in_other_sequences_are_not_applied_to_the_pixels() -> None:
    icon = Dataset()
    icon.VOILUTSequence = table([0, 65535], 0, 16)
    icon.ModalityLUTSequence = table([7, 7], 0, 16)
    data = made(STORED, IconImageSequence=Sequence([icon]), WindowCenter=40, WindowWidth=400)
    np.testing.assert_array_equal(image(data).values, STORED)
    assert image(data).vois == (Window(center=40, width=400),)


@pytest.mark.parametrize("slope", [1, 0.5, -2, 1e-3])
def test_rescale_goes_before_the_window(slope: float) -> None:
    data = made(STORED, RescaleSlope=slope, RescaleIntercept=-100, WindowCenter=40, WindowWidth=400)
    np.testing.assert_allclose(shown(data), linear(STORED * slope - 100.0, 40, 400), 0, 0.51)


def test_a_slope_of_zero_makes_one_grey() -> None:
    data = made(STORED, RescaleSlope=0, RescaleIntercept=40, WindowCenter=40, WindowWidth=401)
    np.testing.assert_allclose(shown(data), 128, 0, 0.51)


@pytest.mark.parametrize("keyword", ["RescaleSlope", "RescaleIntercept"])
def test_a_factor_that_leaves_single_precision_is_a_fault(keyword: str) -> None:
    assert fault(made(STORED, **{keyword: "1e38"})).reason == "undecodable"


@pytest.mark.parametrize("slope", ["1e-30", "1e-300", "1e30"])
def test_extreme_factors_make_grey_levels(slope: str) -> None:
    data = made(STORED, RescaleSlope=slope, WindowCenter=40, WindowWidth=400)
    with np.errstate(all="raise", under="ignore"):
        result = shown(data)
    expected = linear(STORED * float(slope), 40, 400)
    np.testing.assert_allclose(result, expected, 0, 0.51)
