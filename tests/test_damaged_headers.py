"""Damaged headers: each is read or refused with a reason of the table and a detail that says what is wrong."""

import re
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
from pydicom.dataelem import DataElement, RawDataElement
from pydicom.dataset import Dataset
from pydicom.sequence import Sequence
from pydicom.uid import ExplicitVRLittleEndian, ImplicitVRLittleEndian

from imaging.dicom.parse import reading
from imaging.errors import DataFault
from imaging.formats.dicom import read_dicom
from imaging.preprocess.slice import prepare
from imaging.preprocess.spec import PreprocessSpec
from imaging.refusal_reasons import IGNORED, REASONS
from tests.dicom_objects import dataset, file_bytes, ramp
from tests.shown import STORED, table

EXCEPTION = re.compile(r"\w*(Error|Exception|Warning|Iteration|Exit|Interrupt)")
"""The name of a class that Python or pydicom raises, which tells a person nothing."""
SPECS = [PreprocessSpec(window="file", size_px=16), PreprocessSpec(size_px=16)]


def palette(segmented: str = "") -> dict[str, Any]:
    tables: dict[str, Any] = {"PhotometricInterpretation": "PALETTE COLOR"}
    for name in ("Red", "Green", "Blue"):
        tables[f"{name}PaletteColorLookupTableDescriptor"] = [256, 0, 8]
        entries = bytes([0, 1, 0, 1, 255, 255]) if segmented else bytes(range(256))
        tables[f"{segmented}{name}PaletteColorLookupTableData"] = entries
    return tables


def enhanced() -> Dataset:
    inner = Dataset()
    inner.WindowCenter, inner.WindowWidth = 40, 400
    group = Dataset()
    group.FrameVOILUTSequence = Sequence([inner])
    scale = Dataset()
    scale.RescaleSlope, scale.RescaleIntercept = 1, -24
    group.PixelValueTransformationSequence = Sequence([scale])
    one = dataset(STORED[None], SharedFunctionalGroupsSequence=Sequence([group]))
    one.PerFrameFunctionalGroupsSequence = Sequence([Dataset()])
    return one


OBJECTS: dict[str, Any] = {
    "window": lambda: dataset(
        STORED,
        WindowCenter=40,
        WindowWidth=400,
        RescaleSlope=1,
        RescaleIntercept=-24,
        PixelPaddingValue=1024,
    ),
    "tables": lambda: dataset(
        STORED, ModalityLUTSequence=table(np.arange(99), 0, 16), VOILUTSequence=table(np.arange(99), 0, 16)
    ),
    "palette": lambda: dataset(ramp((16, 16), np.uint8), **palette()),
    "padded beyond its bits": lambda: dataset(
        STORED.astype(np.uint16), BitsStored=12, PixelPaddingValue=63536, PixelPaddingRangeLimit=65535
    ),
    "angiogram": lambda: dataset(
        STORED,
        SOPClassUID="1.2.840.10008.5.1.4.1.1.12.1",
        PixelIntensityRelationship="LOG",
        ModalityLUTSequence=table(np.arange(99), 0, 16),
        WindowCenter=40,
        WindowWidth=400,
    ),
    "segments": lambda: dataset(ramp((16, 16), np.uint8), **palette("Segmented")),
    "colour": lambda: dataset(np.zeros((16, 16, 3), np.uint8), PhotometricInterpretation="YBR_FULL"),
    "floats": lambda: dataset(
        np.ones((16, 16), np.float32),
        PixelData=None,
        BitsStored=None,
        FloatPixelData=np.ones((16, 16), np.float32).tobytes(),
        FloatPixelPaddingValue=0.0,
        WindowCenter=1,
        WindowWidth=2,
    ),
    "enhanced": enhanced,
}
ITEM = b"\xfe\xff\x00\xe0"
DAMAGES: dict[str, tuple[str, bytes] | None] = {
    "absent": None,
    "empty": ("", b""),
    "text": ("LO", b"wide"),
    "one word": ("US", b"\1\0"),
    "many words": ("US", b"\7\0\10\0\0\0\377\377"),
    "bytes": ("OB", b"\xff\xfe\xfd\xfc\xfb\xfa"),
    "unknown": ("UN", b"\1\0\1\0"),
    "numbers": ("DS", b"1\\2 "),
    "no number": ("DS", b"1,5\\ "),
    "no items": ("SQ", b""),
    "an empty item": ("SQ", ITEM + bytes(4)),
    "a cut item": ("SQ", ITEM + b"\x40\0\0\0"),
}
"""VR and bytes, in the place of an element's own; "" is its own VR."""
GROUPS = (0x0028, 0x5200, 0x7FE0)


def whole(name: str) -> Dataset:
    one: Dataset = OBJECTS[name]()
    for element in one:
        if element.VR == "US or SS":
            element.VR = "US"  # pydicom cannot choose where PixelRepresentation is absent
    return one


def elements(one: Dataset) -> Iterator[tuple[Dataset, DataElement]]:
    for element in one:
        if element.tag.group in GROUPS:
            yield one, element
            for item in element.value if element.VR == "SQ" else ():
                yield from elements(item)


def places() -> Iterator[Any]:
    for name in OBJECTS:
        for place, (_, element) in enumerate(elements(whole(name))):
            yield pytest.param(name, place, id=f"{name}-{element.keyword}")


def written(name: str, place: int, damage: str, syntax: str) -> bytes:
    """Return a file with one damaged element."""
    one = whole(name)
    source, element = list(elements(one))[place]
    del source[element.tag]
    if DAMAGES[damage] is not None:
        vr, value = DAMAGES[damage] or ("", b"")
        implicit = syntax == ImplicitVRLittleEndian
        source[element.tag] = RawDataElement(
            element.tag, vr or element.VR, len(value), value, 0, implicit, True
        )
    return file_bytes(one, syntax)


def faults(data: bytes) -> list[DataFault]:
    """Return why a file gives no image, with its own window and with a fixed one."""
    try:
        images = [one.image for one in read_dicom(data, "CT")]
    except DataFault as fault:
        return [fault]
    result = []
    for spec in SPECS:
        try:
            for image in images:
                assert prepare(image, spec).shape == (16, 16)
        except DataFault as fault:
            result.append(fault)
    return result


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize(
    "syntax",
    [
        pytest.param(ExplicitVRLittleEndian, id="explicit"),
        # 1,500 files more, which differ in their values alone: no VR is written.
        pytest.param(ImplicitVRLittleEndian, id="implicit", marks=pytest.mark.slow),
    ],
)
@pytest.mark.parametrize(("name", "place"), places())
def test_a_damaged_element_is_read_or_has_its_reason(name: str, place: int, syntax: str) -> None:
    of_sequence = list(elements(whole(name)))[place][1].VR == "SQ"
    for damage in DAMAGES:
        if damage == "unknown" and of_sequence:
            continue  # pydicom does not write it
        for fault in faults(written(name, place, damage, syntax)):
            assert fault.reason in {**IGNORED, **REASONS}, damage
            assert not EXCEPTION.fullmatch(fault.detail), damage
            assert fault.detail or fault.reason == "no-pixels", damage


@pytest.mark.parametrize("name", OBJECTS)
@pytest.mark.parametrize("syntax", [ExplicitVRLittleEndian, ImplicitVRLittleEndian])
def test_each_object_is_read_where_nothing_is_damaged(name: str, syntax: str) -> None:
    assert not [fault for fault in faults(file_bytes(whole(name), syntax)) if fault.reason != "no-window"]


@pytest.mark.parametrize("error", [ValueError, KeyError, RuntimeError, StopIteration])
def test_a_detail_is_more_than_the_name_of_an_exception(error: type[Exception]) -> None:
    with pytest.raises(DataFault) as caught, reading("undecodable", "the pixel data"):
        raise error("DOE^JANE")
    assert caught.value.args == ("undecodable", f"the pixel data cannot be read ({error.__name__})")
    assert not EXCEPTION.fullmatch(caught.value.detail)
