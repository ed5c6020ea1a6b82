"""Reader of a series: volumes by geometry, and the cost of a bad slice under each policy."""

from collections.abc import Iterator
from collections.abc import Sequence as Numbers
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from pydicom.dataset import Dataset
from pydicom.sequence import Sequence
from pydicom.uid import EnhancedCTImageStorage, JPEGLSLossless

from imaging.dicom.dicom_object import DicomObject, open_object
from imaging.errors import DataFault
from imaging.formats import series
from imaging.formats.peek import FUNCTION
from imaging.formats.series import DROP_SLICE, DROP_STUDY, fill_gaps, read_series
from imaging.formats.series_source import SeriesSource, series_tag
from imaging.image.image import PADDED
from imaging.image.instance import Instance
from imaging.pixel_digests import digest_of_all, file_digest, pixel_digest
from imaging.preprocess.spec import PreprocessSpec
from imaging.preprocess.volume import prepare_volume
from imaging.refusal_reasons import NO_LOSS, REASONS
from imaging.sandbox.pool import Pool
from imaging.sandbox.worker_process import WorkerLimits
from imaging.sources.folder_source import FolderSource
from imaging.sources.protocol import Payload, SourceFile
from tests.dicom_objects import compressed, dataset, file_bytes, made

AXIAL = [1, 0, 0, 0, 1, 0]


def level(n: int) -> Any:
    return np.full((8, 8), 10 * n, np.int16)


def piece(n: int, **changes: Any) -> bytes:
    """Return slice `n`, at n x 2 mm, all of whose values are 10 n."""
    defaults = {
        "SOPInstanceUID": f"1.2.3.{n}",
        "ImagePositionPatient": [0, 0, 2.0 * n],
        "ImageOrientationPatient": AXIAL,
        "PixelSpacing": [0.5, 0.5],
        "InstanceNumber": 99 - n,
    }
    return made(changes.pop("stored", level(n)), **{**defaults, **changes})


def payload(*contents: bytes | Path, policy: str = DROP_STUDY) -> Payload:
    return Payload(format="series", name="s", contents=contents, metadata=(("bad-slice", policy),))


def volumes(*contents: bytes | Path, policy: str = DROP_STUDY) -> list[Instance]:
    return list(read_series(payload(*contents, policy=policy), "CT"))


def volume(*contents: bytes | Path, policy: str = DROP_STUDY) -> Instance:
    (one,) = volumes(*contents, policy=policy)
    return one


def fault(*contents: bytes | Path, policy: str = DROP_STUDY) -> DataFault:
    with pytest.raises(DataFault) as caught:
        volumes(*contents, policy=policy)
    return caught.value


def middles(one: Instance) -> list[float]:
    return [float(value) for value in one.image.stored[:, 4, 4]]


WHOLE = [piece(n) for n in range(5)]


def test_slices_are_ordered_by_position() -> None:
    one = volume(*(WHOLE[n] for n in (3, 0, 4, 1, 2)))
    assert middles(one) == [0, 10, 20, 30, 40]
    assert one.image.spacing_mm == (2.0, 0.5, 0.5)
    assert one.sop_instance_uid == one.series_uid == "1.2.3"


def test_the_order_of_the_files_changes_nothing() -> None:
    assert volume(*WHOLE).content_blake3 == volume(*reversed(WHOLE)).content_blake3


def test_files_and_bytes_give_the_same(tmp_path: Path) -> None:
    paths = [tmp_path / str(n) for n in range(5)]
    for path, data in zip(paths, WHOLE, strict=True):
        path.write_bytes(data)
    assert volume(*paths).content_blake3 == volume(*WHOLE).content_blake3


CUT = [*WHOLE[:2], WHOLE[2][:-20], *WHOLE[3:]]
HOLE = [WHOLE[n] for n in (0, 1, 3, 4)]
BROKEN = [
    compressed(
        [b"\xff\xd8\xff\xf7 no codestream"],
        level(n),
        JPEGLSLossless,
        ImagePositionPatient=[0, 0, 2.0 * n],
        ImageOrientationPatient=AXIAL,
        PixelSpacing=[0.5, 0.5],
        SOPInstanceUID=f"1.2.3.{n}",
    )
    for n in range(5)
]


@pytest.mark.parametrize(
    "contents", [CUT, HOLE, [*WHOLE[:2], BROKEN[2], *WHOLE[3:]]], ids=["cut", "hole", "broken"]
)
def test_one_bad_slice_costs_the_volume_under_drop_study(contents: list[bytes]) -> None:
    assert fault(*contents).reason == "bad-slice"


@pytest.mark.parametrize(
    "contents", [CUT, HOLE, [*WHOLE[:2], BROKEN[2], *WHOLE[3:]]], ids=["cut", "hole", "broken"]
)
def test_one_bad_slice_is_filled_from_its_neighbours_under_drop_slice(contents: list[bytes]) -> None:
    one = volume(*contents, policy=DROP_SLICE)
    assert middles(one) == [0, 10, 20, 30, 40]
    assert "gap" in one.findings


@pytest.mark.parametrize("bad", [0, 4])
def test_a_bad_slice_at_an_end_is_left_out(bad: int) -> None:
    one = volume(*(BROKEN[n] if n == bad else WHOLE[n] for n in range(5)), policy=DROP_SLICE)
    assert middles(one) == [10.0 * n for n in range(5) if n != bad]
    assert "gap" in one.findings


@pytest.mark.parametrize("bad", [0, 2, 4])
def test_a_volume_has_a_finding_if_slices_were_left_out(bad: int) -> None:
    pieces = [piece(n) for n in range(5)]
    pieces[bad] = pieces[bad][:-40]
    assert "slices-dropped" in volume(*pieces, policy=DROP_SLICE).findings
    assert "slices-dropped" not in volume(*(piece(n) for n in range(5)), policy=DROP_SLICE).findings


def test_many_missing_slices_are_not_drawn() -> None:
    contents = [piece(n) for n in (0, 1, 2, 7, 8)]
    assert fault(*contents, policy=DROP_SLICE).reason == "bad-slice"


@pytest.mark.parametrize("policy", [DROP_SLICE, DROP_STUDY])
def test_a_series_of_bad_slices_alone_is_a_fault(policy: str) -> None:
    assert fault(*BROKEN, policy=policy).reason == "bad-slice"
    assert fault(*(data[:-9] for data in WHOLE), policy=policy).reason == "truncated"


@pytest.mark.parametrize("policy", [DROP_SLICE, DROP_STUDY])
def test_the_meaning_of_a_lost_volume_is_true_under_its_policy(policy: str) -> None:
    # Too many missing slices cost the volume under drop-slice too.
    contents = [piece(n) for n in range(20) if n not in range(5, 15)]
    assert policy in REASONS[fault(*contents, policy=policy).reason]


def test_a_window_that_cannot_be_used_is_a_finding_of_the_volume() -> None:
    assert volume(*(piece(n, WindowCenter=[40, 50], WindowWidth=400) for n in range(3))).findings == (
        "unusable-window",
    )


def test_a_gap_is_drawn_by_the_distance_of_its_neighbours() -> None:
    one = volume(*(piece(n) for n in (0, 1, 2, 5, 6)), policy=DROP_SLICE)
    np.testing.assert_allclose(middles(one), [0, 10, 20, 30, 40, 50, 60], 1e-5)


SIDE = [0, 1, 0, 0, 0, -1]
LOCALIZER = ["ORIGINAL", "PRIMARY", "LOCALIZER"]


@pytest.mark.parametrize("policy", [DROP_SLICE, DROP_STUDY])
def test_a_slice_that_stands_alone_is_no_volume_and_costs_none(policy: str) -> None:
    localizer = piece(9, ImageOrientationPatient=SIDE, ImagePositionPatient=[3, 0, 9])
    one = volume(localizer, *WHOLE, policy=policy)
    assert middles(one) == [0, 10, 20, 30, 40]
    assert {"single-slice", "mixed-orientation"} <= {*one.findings}
    assert "slices-dropped" not in one.findings


def test_a_volume_keeps_its_name_whatever_stands_beside_it() -> None:
    localizer = piece(9, ImageOrientationPatient=SIDE, ImagePositionPatient=[3, 0, 9])
    assert volume(localizer, *WHOLE).sop_instance_uid.startswith("1.2.3/")


@pytest.mark.parametrize("policy", [DROP_SLICE, DROP_STUDY])
@pytest.mark.parametrize("places", [(0, 1, 2), (0, 1, 3)], ids=["even", "a gap"])
def test_localizers_are_no_volume_even_if_they_are_several(policy: str, places: tuple[int, ...]) -> None:
    # Value 3 of ImageType, PS3.3 C.8.2.1.1.1 of CT and C.8.16.1.3 of enhanced objects.
    scouts = [
        piece(n, ImageOrientationPatient=SIDE, ImagePositionPatient=[5 * n, 0, 9], ImageType=LOCALIZER)
        for n in places
    ]
    one = volume(*scouts, *WHOLE, policy=policy)
    assert middles(one) == [0, 10, 20, 30, 40]
    assert "localizer" in one.findings
    alone = fault(*scouts, policy=policy)
    assert (alone.reason, "localizer" in alone.detail) == ("no-volume", True)


@pytest.mark.parametrize(
    ("differ", "code"),
    [
        ({"TriggerTime": 33}, "several-times"),
        ({"TemporalPositionIdentifier": 1}, "several-times"),
        ({"AcquisitionNumber": 1}, "several-acquisitions"),
        ({"InstanceNumber": 1}, "copies-untold"),
        ({}, "single-slice"),
    ],
)
def test_times_at_one_place_are_no_volumes(differ: dict[str, int], code: str) -> None:
    files = [
        piece(
            0,
            stored=level(n),
            SOPInstanceUID=f"1.2.3.{n}",
            **{"InstanceNumber": 1, **{name: value * (n + 1) for name, value in differ.items()}},
        )
        for n in range(19)
    ]
    one = fault(*files)
    assert (one.reason, code in one.detail) == ("no-volume", True)


def test_what_is_left_of_bad_slices_is_a_bad_series_and_not_no_volume() -> None:
    assert fault(WHOLE[0], WHOLE[1][:-20], policy=DROP_SLICE).reason == "bad-slice"
    assert fault(WHOLE[0], piece(1, ImagePositionPatient=None), policy=DROP_SLICE).reason == "no-geometry"


def test_one_slice_that_is_left_of_a_volume_is_none() -> None:
    assert fault(WHOLE[0], *BROKEN[1:3], policy=DROP_SLICE).reason == "bad-slice"


@pytest.mark.parametrize("policy", [DROP_STUDY, DROP_SLICE])
def test_a_three_plane_localizer_of_several_slices_is_no_volume(policy: str) -> None:
    turned = {"ImageOrientationPatient": SIDE}, {"ImageOrientationPatient": [1, 0, 0, 0, 0, -1]}
    across = ([2.0 * n, 0, 9] for n in range(3)), ([0, 2.0 * n, 9] for n in range(3))
    scouts = [
        piece(n, ImagePositionPatient=place, SOPInstanceUID=f"1.2.{plane}.{n}", **turned[plane])
        for plane in (0, 1)
        for n, place in enumerate(across[plane])
    ]
    one = fault(*scouts, *WHOLE[:3], policy=policy)
    assert one.args == ("no-volume", "9 slices make no volume: localizer, mixed-orientation")


def test_a_series_that_is_no_volume_costs_its_study_nothing() -> None:
    # Else each study with a scout would be lost under drop-study.
    assert "no-volume" in NO_LOSS


def test_two_echoes_become_two_volumes() -> None:
    echoes = [
        piece(n, EchoTime=time, EchoNumbers=e, SOPInstanceUID=f"1.2.3.{n}.{e}", stored=level(n + 100 * e))
        for e, time in enumerate([5.0, 80.0])
        for n in range(3)
    ]
    assert sorted(middles(one) for one in volumes(*echoes)) == [[0, 10, 20], [1000, 1010, 1020]]


def test_each_slice_has_its_own_scale() -> None:
    contents = [piece(n, RescaleSlope=n + 1, RescaleIntercept=-n) for n in range(3)]
    assert middles(volume(*contents)) == [0, 10 * 2 - 1, 20 * 3 - 2]


def enhanced(*numbers: int, levels: Numbers[int] = (), **changes: Any) -> bytes:
    """Return an object of several frames: slices `numbers`, with their own values or those of `levels`."""
    groups = []
    for n in numbers:
        group, place = Dataset(), Dataset()
        place.ImagePositionPatient = [0, 0, 2.0 * n]
        group.PlanePositionSequence = Sequence([place])
        groups.append(group)
    shared, measures, turn = Dataset(), Dataset(), Dataset()
    measures.PixelSpacing, turn.ImageOrientationPatient = [0.5, 0.5], AXIAL
    shared.PixelMeasuresSequence, shared.PlaneOrientationSequence = Sequence([measures]), Sequence([turn])
    return file_bytes(
        dataset(
            np.stack([level(n) for n in levels or numbers]),
            SOPClassUID=EnhancedCTImageStorage,
            SharedFunctionalGroupsSequence=Sequence([shared]),
            PerFrameFunctionalGroupsSequence=Sequence(groups),
            **changes,
        )
    )


def test_a_multi_frame_object_becomes_one_volume() -> None:
    one = volume(enhanced(2, 0, 1))
    assert middles(one) == [0, 10, 20]
    assert one.image.spacing_mm == (2.0, 0.5, 0.5)


def test_a_volume_knows_the_uids_of_its_slices_in_their_order() -> None:
    assert volume(*(WHOLE[n] for n in (3, 0, 4, 1, 2))).slice_uids == tuple(f"1.2.3.{n}" for n in range(5))


@pytest.mark.parametrize(("bad", "uids"), [(2, ["0", "1", "", "3", "4"]), (0, ["1", "2", "3", "4"])])
def test_a_slice_that_was_filled_has_no_uid(bad: int, uids: list[str]) -> None:
    broken = [one if n != bad else one[:-40] for n, one in enumerate(WHOLE)]
    known = volume(*broken, policy=DROP_SLICE).slice_uids
    assert known == tuple(f"1.2.3.{uid}" if uid else "" for uid in uids)


def test_slices_of_one_object_have_its_uid() -> None:
    one = volume(enhanced(2, 0, 1))
    assert len({*one.slice_uids}) == 1
    assert len(one.slice_uids) == len(one.image.stored)


def test_a_file_that_is_gone_meanwhile_gives_no_frames_of_another(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    pairs = [(0, 1), (2, 3), (4, 5)]
    files = [
        enhanced(*pair, levels=(7, 9) if pair == (2, 3) else (), SOPInstanceUID=f"1.2.3.{pair[0]}")
        for pair in pairs
    ]
    opened: list[bytes] = []

    def open_once(data: bytes) -> DicomObject:
        opened.append(data)
        if data == files[1] and opened.count(data) > 1:
            raise DataFault("truncated", "the file became shorter")
        return open_object(data)

    monkeypatch.setattr(series, "open_object", open_once)
    one = volume(*files, policy=DROP_SLICE)
    assert middles(one) == [0, 10, 20, 30, 40, 50]
    assert "gap" in one.findings


def test_monochrome1_is_turned_over_once() -> None:
    contents = [piece(n, PhotometricInterpretation="MONOCHROME1", stored=level(300)) for n in range(4)]
    one = volume(*contents)
    assert one.image.inverted
    assert (prepare_volume(one.image, PreprocessSpec(kind="volume", slices=4, size_px=16)) == 0).all()


def test_padding_of_each_slice_is_padding_of_the_volume() -> None:
    stored = level(20)
    stored[:, :4] = -2000
    contents = [piece(n, stored=stored, PixelPaddingValue=-2000) for n in (0, 1, 3)]
    one = volume(*contents, policy=DROP_SLICE)
    assert one.image.padding == (PADDED, PADDED)
    shown = prepare_volume(one.image, PreprocessSpec(kind="volume", slices=4, size_px=16))
    assert (shown[:, :, :8] == 0).all()
    assert (shown[:, :, 8:] > 0).all()


def test_what_one_neighbour_did_not_measure_is_not_drawn() -> None:
    result = np.array([[[0.0, PADDED]], [[7.0, 7.0]], [[10.0, 10.0]]], np.float32)
    fill_gaps(result, [0, 2])
    np.testing.assert_array_equal(result[1], [[5, PADDED]])


def test_other_files_of_a_series_cost_nothing() -> None:
    report = made(level(0), PixelData=None)
    assert middles(volume(report, *WHOLE, b"Dear colleague")) == [0, 10, 20, 30, 40]


@pytest.mark.parametrize("policy", [DROP_SLICE, DROP_STUDY])
def test_two_patients_make_no_volume(policy: str) -> None:
    assert fault(*WHOLE[:4], piece(4, PatientID="Q"), policy=policy).reason == "bad-slice"


def test_slices_without_a_position_make_no_volume() -> None:
    contents = [piece(n, ImagePositionPatient=None) for n in range(3)]
    assert fault(*contents).reason == "bad-slice"
    assert fault(*contents, policy=DROP_SLICE).reason == "no-geometry"


def test_a_volume_of_too_many_voxels_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("imaging.formats.series.VOXELS", 5 * 64 - 1)
    assert fault(*WHOLE).reason == "too-large"


def test_a_fault_quotes_no_value_of_the_files() -> None:
    detail = fault(*WHOLE[:4], piece(4, PatientID="DOE^JANE")).detail
    assert "DOE" not in detail


@pytest.fixture
def grouped(tmp_path: Path) -> Iterator[SeriesSource]:
    for n, data in enumerate(CUT):
        (tmp_path / f"a{n}").write_bytes(data)
    for n in range(3):
        (tmp_path / f"b{n}").write_bytes(piece(n, SeriesInstanceUID="1.2.9"))
    (tmp_path / "letter.txt").write_bytes(b"Dear colleague")
    with Pool(FUNCTION, {}, workers=1, limits=WorkerLimits()) as workers:
        yield SeriesSource(FolderSource(tmp_path), workers, DROP_SLICE)


@pytest.mark.slow
def test_files_are_grouped_by_their_series_even_where_they_are_cut(grouped: SeriesSource) -> None:
    files = list(grouped.scan())
    assert [file.name for file in files] == ["series 1.2.3", "series 1.2.9", "letter.txt"]
    assert files[0].size_bytes == sum(map(len, CUT))
    assert len(grouped.fetch(files[0]).contents) == 5
    assert middles(next(read_series(grouped.fetch(files[0]), "CT"))) == [0, 10, 20, 30, 40]


@pytest.mark.slow
def test_a_file_that_came_later_changes_its_series(grouped: SeriesSource) -> None:
    before = {file.name: file for file in grouped.scan()}
    (Path(grouped.source.root) / "b3").write_bytes(piece(3, SeriesInstanceUID="1.2.9"))  # type: ignore[attr-defined]
    after = {file.name: file for file in grouped.scan()}
    assert after["series 1.2.3"] == before["series 1.2.3"]
    assert after["series 1.2.9"].size_bytes > before["series 1.2.9"].size_bytes


def test_a_volume_is_named_by_its_files_and_its_pixels() -> None:
    one = volume(*WHOLE)
    assert one.content_blake3 == digest_of_all(map(file_digest, WHOLE)).hex()
    assert one.pixel_blake3 == digest_of_all(pixel_digest(level(n)) for n in range(5)).hex()


def test_another_header_makes_another_volume_of_the_same_pixels() -> None:
    one, other = volume(*WHOLE), volume(*(piece(n, ImageComments="seen") for n in range(5)))
    assert one.content_blake3 != other.content_blake3
    assert one.pixel_blake3 == other.pixel_blake3


def test_the_institution_of_a_volume_is_that_of_its_slices() -> None:
    assert volume(*(piece(n, InstitutionName="Harbour") for n in range(5))).institution == "Harbour"


def test_a_series_has_the_tags_of_its_files_as_one() -> None:
    files = [SourceFile(name=name, size_bytes=1, mtime_ns=1, tag=f"tag of {name}") for name in "ab"]
    assert series_tag(files) not in ("", series_tag(files[:1]))
    assert series_tag([replace(file, tag="") for file in files]) == ""


def test_padding_behind_the_pixels_of_a_slice_is_a_finding_of_the_volume() -> None:
    padded = piece(1, PixelData=level(1).tobytes() + bytes(8))
    assert "padded-pixels" in volume(piece(0), padded, piece(2)).findings
    assert "padded-pixels" not in volume(piece(0), piece(1), piece(2)).findings


def test_a_slice_with_a_frame_that_its_header_does_not_count_is_bad() -> None:
    doubled = piece(1, PixelData=level(1).tobytes() * 2)
    with pytest.raises(DataFault, match="surplus-data"):
        volumes(piece(0), doubled, piece(2))
    assert "slices-dropped" in volume(piece(0), doubled, piece(2), policy=DROP_SLICE).findings
