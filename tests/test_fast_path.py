"""Fast path of de-identification: its output equals that of the full scrub, byte by byte."""

import random
from collections.abc import Iterator
from itertools import count
from pathlib import Path
from typing import Any

import pytest
from pydicom.dataset import Dataset
from pydicom.sequence import Sequence
from pydicom.uid import ExplicitVRLittleEndian, ImplicitVRLittleEndian

from bench.midi_objects import exam
from bench.objects import planted as planted_everywhere
from imaging.deidentify.objects.element_cache import CACHE_BYTES, ENTRY_BYTES, ElementCache, cache_for
from imaging.deidentify.objects.element_parser import parse_elements
from imaging.deidentify.objects.fast_path import open_fast_path
from imaging.deidentify.objects.file_writer import write_object
from imaging.deidentify.objects.scrub import scrub
from imaging.deidentify.options import DeidentifyOptions
from imaging.dicom.parse import parse
from imaging.errors import DataFault
from tests.dicom_objects import corpus, file_bytes
from tests.planted_identifiers import leaks, planted, whole
from tests.scrubbed_objects import KEY, LOOSE, STRICT, slice_of
from tests.synthetic import write_archive

pytestmark = pytest.mark.filterwarnings("ignore")
PLAIN = (ExplicitVRLittleEndian, ImplicitVRLittleEndian)
OPTIONS = (
    DeidentifyOptions(),
    STRICT,
    LOOSE.model_copy(update={"safe_private": False, "documents": "clean"}),
    DeidentifyOptions(descriptors=True, patient_variants="join"),
)


@pytest.fixture(autouse=True)
def _empty_caches() -> Iterator[None]:
    cache_for.cache_clear()
    yield
    cache_for.cache_clear()


def fast(data: bytes, options: DeidentifyOptions) -> bytes | None:
    fast_path = open_fast_path(data, options, KEY)
    output = fast_path.output() if fast_path else None
    return b"".join(output[0]) if output else None


def slow(data: bytes, options: DeidentifyOptions) -> bytes | None:
    try:
        return write_object(scrub(parse(data), options, KEY))
    except DataFault:
        return None


def file_of(syntax: str = ExplicitVRLittleEndian, **changes: Any) -> bytes:
    return file_bytes(slice_of(**changes), syntax)


def after(*files: bytes, **options: Any) -> Dataset:
    """Return what comes out of the last of some files, all of which took the fast path in their order."""
    chosen = DeidentifyOptions(**options)
    outputs = [fast(data, chosen) for data in files]
    assert None not in outputs
    assert outputs[-1] == slow(files[-1], chosen)
    return parse(outputs[-1] or b"")


@pytest.mark.slow
@pytest.mark.parametrize("options", OPTIONS, ids=lambda options: options.digest())
def test_real_and_generated_files_become_the_same(tmp_path: Path, options: DeidentifyOptions) -> None:
    archive, _ = write_archive(tmp_path / "archive")
    paths = [*corpus(), *(path for path in archive.rglob("*") if path.is_file())]
    files = [path.read_bytes() for path in paths if path.stat().st_size < 2**22]
    files += [exam(number).data for number in range(20)]
    files += [
        file_of(syntax, PatientID=f"P{one % 7}", InstanceNumber=one) for one in range(20) for syntax in PLAIN
    ]
    expected, went = [slow(data, options) for data in files], 0
    for turn in range(2):
        order = list(range(len(files)))
        random.Random(turn).shuffle(order)
        for at in order:
            output = fast(files[at], options)
            assert output is None or output == expected[at], paths[at] if at < len(paths) else at
            went += output is not None
    assert went > 200


@pytest.mark.slow
@pytest.mark.parametrize("syntax", PLAIN)
@pytest.mark.parametrize("depth", [0, 1, 3, 8])
@pytest.mark.parametrize("options", [DeidentifyOptions(), STRICT], ids=["shift", "remove"])
def test_no_row_of_the_table_leaks(depth: int, syntax: str, options: DeidentifyOptions) -> None:
    numbers = count()
    for _ in range(2):
        extra, secrets = planted(depth, numbers)
        for tag in [element.tag for element in extra if element.tag > 0x7FE00010]:
            del extra[tag]  # what comes behind the pixels goes the slow way
        data = whole(extra, syntax)
        outputs = [fast(data, options), fast(data, options)]
        assert outputs == [slow(data, options)] * 2
        assert outputs[0] is not None
        assert leaks(outputs[0], secrets | {"Sen99999tinel", "Sen99998tinel", "Sen99997tinel"}) == set()


@pytest.mark.parametrize("syntax", PLAIN)
def test_the_text_that_stays_with_one_patient_goes_with_whom_it_names(syntax: str) -> None:
    kernel = "B20f Schmidt"
    other = file_of(syntax, PatientName="Doe^Johanna", ConvolutionKernel=kernel)
    named = file_of(syntax, PatientName="Schmidt^Eva", PatientID="99-1", ConvolutionKernel=kernel)
    assert after(other).ConvolutionKernel == kernel
    assert after(other, other, named).ConvolutionKernel == "B20f"
    assert after(named, other).ConvolutionKernel == kernel


def test_two_texts_side_by_side_make_no_name() -> None:
    made = file_of(PatientName="Abc^Defghi", ConvolutionKernel="Abc", FilterType="DEFGHI")
    assert after(made, made).ConvolutionKernel == after(made).ConvolutionKernel


def test_the_uid_of_one_object_is_removed_from_a_text_that_its_neighbour_kept() -> None:
    uid = "1.2.826.0.1.3680043.8.498.4711"
    files = [file_of(SOPInstanceUID=one, ImageComments=f"see {uid}") for one in ("1.2.3.9", uid)]
    assert uid in after(files[0], descriptors=True).ImageComments
    assert uid not in str(after(*files, descriptors=True).get("ImageComments"))


def test_what_an_option_keeps_is_no_secret_though_it_stands_elsewhere_too() -> None:
    made = slice_of(StudyInstanceUID="1.2.826.0.1.77", ImageComments="see 1.2.826.0.1.77")
    made.private_block(0x0099, "SOMEBODY", create=True).add_new(0x01, "UI", "1.2.826.0.1.77")
    kept = after(file_bytes(made), file_bytes(made), uids=True, descriptors=True)
    assert kept.ImageComments == "see 1.2.826.0.1.77"


def test_equal_dates_of_two_patients_move_each_by_its_days() -> None:
    nested = Dataset()
    nested.SeriesDate = "20240228"
    changes = {"StudyDate": "20240228", "ReferencedSeriesSequence": Sequence([nested])}
    one, other = (after(file_of(PatientID=name, **changes)) for name in ("one", "other"))
    again = after(file_of(PatientID="one", **changes), file_of(PatientID="other", **changes))
    assert one.StudyDate != other.StudyDate == again.StudyDate
    steps = [made.ReferencedSeriesSequence[0].SeriesDate for made in (one, other, again)]
    assert steps[0] != steps[1] == steps[2]


def test_a_sequence_without_dates_becomes_the_same_for_all_patients(monkeypatch: pytest.MonkeyPatch) -> None:
    nested = Dataset()
    nested.CodeValue, nested.CodeMeaning = "T-D4000", "Abdomen"
    files = [file_of(PatientID=one, AnatomicRegionSequence=Sequence([nested])) for one in ("one", "other")]
    fast(files[0], DeidentifyOptions())
    monkeypatch.setattr(ElementCache, "parsed", lambda *_: pytest.fail("treated again"))
    assert fast(files[1], DeidentifyOptions()) == slow(files[1], DeidentifyOptions())


def test_letters_beyond_ascii_are_declared_again() -> None:
    made = file_of(SpecificCharacterSet="ISO_IR 100", ConvolutionKernel="weiß Doe", PatientName="Doe^J")
    plain = file_of(SpecificCharacterSet="ISO_IR 100", ConvolutionKernel="weiß", PatientName="Roe^J")
    assert after(plain, plain).SpecificCharacterSet == after(plain).SpecificCharacterSet
    assert after(made, made).SpecificCharacterSet == "ISO_IR 192"


@pytest.mark.parametrize("options", [{"safe_private": True}, {"burned_in": "blank"}])
def test_what_hangs_together_goes_the_slow_way(options: dict[str, Any]) -> None:
    assert open_fast_path(file_of(), DeidentifyOptions(**options), KEY) is None


@pytest.mark.parametrize("syntax", ["big endian", "deflated"])
def test_other_forms_go_the_slow_way(syntax: str) -> None:
    assert parse_elements(planted_everywhere(syntax).data) is None


@pytest.mark.parametrize("cut", [1, 40])
def test_a_file_that_was_cut_goes_the_slow_way(cut: int) -> None:
    assert parse_elements(file_of()[:-cut]) is None


def test_a_value_that_pydicom_would_write_otherwise_goes_the_slow_way() -> None:
    data = file_of(Modality="CT").replace(b"CS\x02\x00CT", b"CS\x04\x00CT  ")
    fast_path = open_fast_path(data, DeidentifyOptions(), KEY)
    assert fast_path is not None
    assert fast_path.output() is not None
    assert fast_path.dataset.Modality.strip() == "CT"
    assert fast_path.output() is None


def test_a_look_at_the_data_set_changes_nothing() -> None:
    data = file_of(Modality="CT", ImageType=["ORIGINAL", "PRIMARY"])
    fast_path = open_fast_path(data, DeidentifyOptions(), KEY)
    assert fast_path is not None
    assert fast_path.dataset.ImageType == ["ORIGINAL", "PRIMARY"]
    output = fast_path.output()
    assert output is not None
    assert b"".join(output[0]) == slow(data, DeidentifyOptions())


@pytest.mark.parametrize("syntax", PLAIN)
def test_the_data_set_is_the_one_that_is_parsed(syntax: str) -> None:
    data = whole(planted(3, count())[0], syntax)
    fast_path, expected = open_fast_path(data, DeidentifyOptions(), KEY), parse(data)
    assert fast_path is not None
    made = fast_path.dataset
    assert made.file_meta == expected.file_meta
    del expected.PixelData
    assert made == expected


def test_what_is_remembered_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    sizes: list[int] = []
    before = ElementCache._make_room

    def make_room(self: ElementCache, size: int) -> None:
        before(self, size)
        sizes.append(len(self._known) + len(self.of_patients))

    monkeypatch.setattr("imaging.deidentify.objects.element_cache.CACHE_BYTES", 20 * ENTRY_BYTES)
    monkeypatch.setattr(ElementCache, "_make_room", make_room)
    for number in range(20):
        assert fast(file_of(InstanceNumber=number, SOPInstanceUID=f"1.2.{number}"), STRICT)
    assert max(sizes) <= 20 < len(sizes)
    assert CACHE_BYTES <= 2**23
