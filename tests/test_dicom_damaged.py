"""Damaged files: each is read whole or refused, and never gets pixels that it does not have."""

from io import BytesIO
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydicom import dcmread
from pydicom.dataset import Dataset
from pydicom.sequence import Sequence
from pydicom.uid import (
    ExplicitVRLittleEndian,
    ImplicitVRLittleEndian,
    RLELossless,
)

from imaging.errors import DataFault
from imaging.formats.dicom import read_dicom
from tests.dicom_objects import (
    NATIVE,
    PREAMBLE,
    UNDEFINED,
    compressed,
    dataset,
    element,
    fault,
    file_bytes,
    image,
    insert,
    made,
    meta,
    ramp,
)

SMALL = ramp((4, 4))


def sequences() -> dict[str, Any]:
    """Return sequences of undefined and of defined length that come before the pixels."""
    inner = Dataset()
    inner.CodeMeaning = "x" * 6
    outer = Dataset()
    outer.PurposeOfReferenceCodeSequence = Sequence([inner])
    return {"ReferencedImageSequence": Sequence([outer]), "ProcedureCodeSequence": Sequence([inner])}


def small(kind: str) -> bytes:
    one = dataset(SMALL, **sequences())
    one["ReferencedImageSequence"].is_undefined_length = True
    one.ReferencedImageSequence[0].is_undefined_length_sequence_item = True
    if kind == "rle":
        one.file_meta = dcmread(BytesIO(file_bytes(one))).file_meta
        one.compress(RLELossless)
        return file_bytes(one, RLELossless)
    return file_bytes(one, {"explicit": ExplicitVRLittleEndian, "implicit": ImplicitVRLittleEndian}[kind])


@pytest.mark.parametrize("kind", ["explicit", "implicit", "rle"])
def test_a_file_cut_at_any_byte_is_whole_or_refused(kind: str) -> None:
    data = small(kind)
    np.testing.assert_array_equal(image(data).stored, SMALL)
    for end in range(len(data)):
        # Only a cut in the delimiter behind the last fragment could leave the pixels whole, and is refused too.
        assert fault(data[:end]).reason in {"truncated", "not-dicom", "missing-identifier", "no-pixels"}, end


@pytest.mark.parametrize("kind", ["explicit", "implicit", "rle"])
def test_a_file_cut_behind_its_pixels_is_read(kind: str) -> None:
    data = small(kind)
    behind = element(0xFFFCFFFC, b"OB", bytes(40))
    for end in range(len(behind)):
        np.testing.assert_array_equal(image(data + behind[:end]).stored, SMALL)


@pytest.mark.parametrize("length", [2**16, 2**31, UNDEFINED - 1])
def test_a_huge_length_is_truncation(length: int) -> None:
    data = insert(made(SMALL), element(0x00091001, b"OB", b"", length), 0x00280002)
    assert fault(data).reason == "truncated"


def test_pixels_of_a_compressed_syntax_are_not_read_as_they_lie() -> None:
    data = made(SMALL).replace(b"1.2.840.10008.1.2.1\0", b"1.2.840.10008.1.2.5\0")
    assert fault(data).reason == "undecodable"


def test_fragments_of_a_native_syntax_are_not_read_as_they_lie() -> None:
    data = compressed([bytes(300)], SMALL, RLELossless)
    assert fault(data.replace(b"1.2.840.10008.1.2.5\0", b"1.2.840.10008.1.2.1\0")).reason == "undecodable"


def test_a_private_syntax_is_not_guessed() -> None:
    data = made(SMALL).replace(b"1.2.840.10008.1.2.1\0", b"1.2.840.113619.5.2\0\0")
    assert fault(data).reason == "undecodable"


def mutated(data: bytes, changes: list[tuple[float, int]]) -> bytes:
    changed = bytearray(data)
    for at, value in changes:
        changed[132 + int(at * (len(data) - 132))] = value
    return bytes(changed)


@pytest.mark.slow
@pytest.mark.filterwarnings("error")  # what pydicom warns of quotes values
@settings(max_examples=300)
@given(
    st.sampled_from(["explicit", "implicit", "rle"]),
    st.lists(st.tuples(st.floats(0, 0.999), st.integers(0, 255)), min_size=1, max_size=8),
)
def test_any_bytes_changed_give_images_or_a_fault(kind: str, changes: list[tuple[float, int]]) -> None:
    data = mutated(small(kind), changes)
    for modality in ("CT", ""):
        try:
            for one in read_dicom(data, modality):
                assert one.image.stored.ndim == 2
        except DataFault as found:
            assert found.reason


@pytest.mark.filterwarnings("error")  # what pydicom warns of quotes values
@settings(max_examples=200)
@given(st.binary(max_size=400), st.sampled_from(NATIVE))
def test_any_bytes_behind_the_meta_give_images_or_a_fault(rest: bytes, syntax: str) -> None:
    for start in (PREAMBLE, meta(syntax)):
        try:
            list(read_dicom(start + rest, "CT"))
        except DataFault as found:
            assert found.reason
