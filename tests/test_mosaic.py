"""Siemens mosaics: each tile is a slice at its place, as other readers read it, or the object is refused by name."""

import gzip
import io
import warnings
from pathlib import Path
from typing import Any

import nibabel
import numpy as np
import pydicom
import pytest
from numpy.typing import NDArray
from pydicom.dataset import Dataset
from pydicom.sequence import Sequence
from pydicom.uid import EnhancedMRImageStorage, ExplicitVRLittleEndian, ImplicitVRLittleEndian, RLELossless

from imaging.dicom.csa_header import csa_values
from imaging.dicom.dicom_object import open_object
from imaging.dicom.frames import Frames, frames_of
from imaging.dicom.geometry import to_ras
from imaging.dicom.stacking import SliceStack, stack_slices
from imaging.errors import DataFault
from imaging.formats.dicom import read_dicom
from imaging.formats.peek import HeaderPeek, peek_batch
from imaging.formats.series import DROP_SLICE, DROP_STUDY, read_series
from imaging.image.instance import Instance
from imaging.source_overview import OverviewCounter
from imaging.sources.protocol import Payload, SourceFile
from tests.dicom_objects import file_bytes
from tests.mosaics import FIRST, TILTED, csa, image_header, mosaic, volume

with warnings.catch_warnings(action="ignore"):
    from nibabel.nicom.csareader import read as nibabel_csa
    from nibabel.nicom.dicomwrappers import MosaicWrapper, wrapper_from_data

PUBLIC = Path(nibabel.__file__).parent / "nicom/tests/data"
"""Mosaics of scanners, which nibabel carries."""
BEHIND = (0.0, 1.0, 0.0, 0.0, 0.0, -1.0)
DIRECTIONS = [(TILTED, 1), (TILTED, -1), (BEHIND, 1), (BEHIND, -1)]


def frames(data: bytes) -> Frames:
    return frames_of(open_object(data))


def stack(data: bytes) -> SliceStack:
    (one,) = stack_slices(frames(data).slice_attributes()).stacks
    return one


def tiles(data: bytes) -> list[Instance]:
    return list(read_dicom(data, "MR"))


def volumes(*contents: bytes, policy: str = DROP_STUDY) -> list[Instance]:
    return list(
        read_series(
            Payload(format="series", name="s", contents=contents, metadata=(("bad-slice", policy),)), "MR"
        )
    )


def second_reader(data: bytes) -> MosaicWrapper:
    return wrapper_from_data(pydicom.dcmread(io.BytesIO(data)))


def second_affine(wrapper: MosaicWrapper) -> NDArray[np.float64]:
    """Return nibabel's affine for indices of column, row and slice, in its frame (RAS)."""
    affine = np.asarray(wrapper.affine)[:, [1, 0, 2, 3]]
    return np.diag([-1.0, -1.0, 1.0, 1.0]) @ affine


def public_mosaic(name: str) -> bytes:
    """Return one of nibabel's files with the identifiers that were taken out of it."""
    made = pydicom.dcmread(io.BytesIO(gzip.decompress((PUBLIC / name).read_bytes())))
    made.PatientID, made.StudyInstanceUID, made.SeriesInstanceUID = "P", "1.2", "1.2.3"
    buffer = io.BytesIO()
    made.save_as(buffer)
    return buffer.getvalue()


@pytest.mark.parametrize("count", [2, 4, 7, 36])
def test_each_tile_is_a_slice_and_the_black_rest_is_none(count: int) -> None:
    slices = volume(count)
    made = tiles(file_bytes(mosaic(slices)))
    np.testing.assert_array_equal([one.image.stored for one in made], slices)
    assert [one.frame for one in made] == [*range(1, count + 1)]
    assert len({one.pixel_blake3 for one in made}) == count


@pytest.mark.parametrize(("cosines", "sign"), DIRECTIONS)
def test_slices_lie_where_nibabel_puts_them(cosines: tuple[float, ...], sign: int) -> None:
    data = file_bytes(mosaic(volume(7), cosines, sign=sign))
    np.testing.assert_allclose(
        second_affine(second_reader(data)) @ [0, 0, 0, 1], to_ras(np.eye(4)) @ [*FIRST, 1]
    )
    ours, theirs = to_ras(stack(data).affine), second_affine(second_reader(data))
    # Ours begins at the lowest place along the normal, nibabel's with the first tile.
    ends = [(ours @ (2, 3, k, 1)).tolist() for k in (0, 6)][::sign]
    np.testing.assert_allclose(ends, [theirs @ (2, 3, k, 1) for k in (0, 6)], atol=1e-6)
    assert stack(data).findings == ()


@pytest.mark.parametrize(("cosines", "sign"), DIRECTIONS)
def test_a_mosaic_is_one_volume_in_the_order_of_the_places(cosines: tuple[float, ...], sign: int) -> None:
    data = file_bytes(mosaic(volume(7), cosines, sign=sign))
    (one,) = volumes(data)
    expected = np.moveaxis(second_reader(data).get_unscaled_data(), -1, 0)[::sign]
    np.testing.assert_array_equal(one.image.stored, expected)
    assert one.image.spacing_mm == (5.0, 3.0, 2.0)


@pytest.mark.parametrize("name", ["siemens_dwi_0.dcm.gz", "siemens_dwi_1000.dcm.gz"])
def test_a_mosaic_of_a_scanner_is_read_as_nibabel_reads_it(name: str) -> None:
    data = public_mosaic(name)
    (one,) = volumes(data)
    expected = np.moveaxis(second_reader(data).get_unscaled_data(), -1, 0)
    np.testing.assert_array_equal(one.image.stored, expected)
    np.testing.assert_allclose(to_ras(stack(data).affine), second_affine(second_reader(data)), atol=1e-5)
    np.testing.assert_array_equal([tile.image.stored for tile in tiles(data)], expected)


def test_times_in_one_series_are_volumes_of_their_own() -> None:
    slices = volume(7)
    files = [
        file_bytes(mosaic(slices + n, SOPInstanceUID=f"1.2.3.{n}", AcquisitionNumber=n, InstanceNumber=n))
        for n in (3, 1, 2)
    ]
    made = volumes(*files)
    assert [one.image.stored[0, 0, 0] - slices[0, 0, 0] for one in made] == [1, 2, 3]
    assert all(one.image.stored.shape == slices.shape for one in made)


FORMS = ["newer", "GDCM", "SPM"]


@pytest.mark.parametrize("form", FORMS)
def test_all_forms_of_the_header_have_the_same_values(form: str) -> None:
    # The older one as the sources of GDCM and of SPM describe it; nibabel fails on it (its issue 817).
    header = csa(image_header(7, (0, 0.6, 0.8)), form)
    values = csa_values(header, ("NumberOfImagesInMosaic", "SliceNormalVector", "B_value"))
    assert values == {
        "NumberOfImagesInMosaic": ["7"],
        "SliceNormalVector": ["0.00000000", "0.60000000", "0.80000000"],
        "B_value": [],
    }


def test_the_newer_form_of_the_header_is_read_as_nibabel_reads_it() -> None:
    for name in ("csa2_b0.bin", "csa2_b1000.bin"):
        raw = (PUBLIC / name).read_bytes()
        tags = nibabel_csa(raw)["tags"]
        names = ("NumberOfImagesInMosaic", "SliceNormalVector", "B_matrix")
        ours = {key: [float(text) for text in texts] for key, texts in csa_values(raw, names).items()}
        assert ours == {key: tags[key]["items"] for key in names}


@pytest.mark.parametrize("form", FORMS)
def test_all_forms_of_the_header_give_the_same_volume(form: str) -> None:
    slices = volume(7)
    header = csa(image_header(7, -np.cross(TILTED[:3], TILTED[3:])), form)
    older, newer = file_bytes(mosaic(slices, header=header)), file_bytes(mosaic(slices, sign=-1))
    assert volumes(older)[0].pixel_blake3 == volumes(newer)[0].pixel_blake3


@pytest.mark.parametrize("cut", [0, 3, 11, 60, 170, 300, -40])
def test_a_damaged_header_has_no_values(cut: int) -> None:
    header = csa(image_header(7, (0, 0, 1)))
    assert csa_values(header[:cut], ("SliceNormalVector",)) == {}
    backwards = header.replace(b"\x03\0\0\0\x03\0\0\0", b"\xf0\xff\xff\xff\xf0\xff\xff\xff")
    assert backwards != header
    assert csa_values(backwards, ("SliceNormalVector",)) == {}


def test_the_number_alone_gives_slices_but_no_volume() -> None:
    # As public data sets are, whose anonymizers take out the CSA header and leave (0019,100A).
    slices = volume(7)
    data = file_bytes(mosaic(slices, header=None, number=7))
    np.testing.assert_array_equal([one.image.stored for one in tiles(data)], slices)
    for policy in (DROP_STUDY, DROP_SLICE):
        with pytest.raises(DataFault) as caught:
            volumes(data, policy=policy)
        assert "no-geometry" in (caught.value.reason, *caught.value.detail.split())


@pytest.mark.parametrize("changes", [{"SpacingBetweenSlices": None}, {"PixelSpacing": None}])
def test_a_mosaic_without_a_distance_makes_no_volume(changes: dict[str, Any]) -> None:
    data = file_bytes(mosaic(volume(7), **changes))
    assert len(tiles(data)) == 7
    with pytest.raises(DataFault):
        volumes(data)


def test_a_normal_that_is_not_that_of_the_slices_gives_no_place() -> None:
    header = csa(image_header(7, (1, 0, 0)))
    assert frames(file_bytes(mosaic(volume(7), header=header))).mosaic.geometry is None  # type: ignore[union-attr]


REFUSED = {
    "no private elements": (mosaic(volume(7), header=None), "without NumberOfImagesInMosaic"),
    "a manufacturer that was removed": (
        mosaic(volume(7), header=None, Manufacturer=None),
        "without NumberOfImagesInMosaic",
    ),
    "a damaged header": (mosaic(volume(7), header=b"SV10 and so on"), "without NumberOfImagesInMosaic"),
    "no slices": (mosaic(volume(7), header=None, number=0), "is [0]"),
    "two numbers": (mosaic(volume(7), number=9), "is [7, 9]"),
    "more times in the private elements": (
        mosaic(volume(16), header=None, number=4, times=[float(n) for n in range(16)]),
        "is 4, with 16 MosaicRefAcqTimes",
    ),
    "more times in the CSA header": (
        mosaic(
            volume(36),
            header=csa({**image_header(4, (0, 0, 1)), "MosaicRefAcqTimes": ["0.5", *["1"] * 35, ""]}),
        ),
        "is 4, with 36 MosaicRefAcqTimes",
    ),
    "slices of three times the matrix": (
        mosaic(volume(36), header=None, number=4, AcquisitionMatrix=[8, 0, 0, 6]),
        "is 4, which makes slices of 24 pixels, and whose AcquisitionMatrix has 8",
    ),
    "slices of half the matrix": (
        mosaic(volume(4), header=None, number=16, AcquisitionMatrix=[0, 8, 6, 0]),
        "is 16, which makes slices of 4 pixels, and whose AcquisitionMatrix has 8",
    ),
    "a grid that does not fit": (mosaic(volume(7), header=None, number=50), "24 x 18 is no multiple of 8"),
}


@pytest.mark.parametrize(("made", "detail"), REFUSED.values(), ids=REFUSED)
def test_a_mosaic_that_cannot_be_cut_is_refused_by_name(made: Dataset, detail: str) -> None:
    data = file_bytes(made)
    for read in (tiles, volumes):
        with pytest.raises(DataFault) as caught:
            read(data)
        assert caught.value.reason == "unsupported"
        assert "Siemens mosaic" in caught.value.detail
        assert detail in caught.value.detail


@pytest.mark.parametrize("matrix", [[8, 0, 0, 6], [0, 4, 3, 0], [8, 0, 0, 12], [0, 0, 0, 0], None])
def test_matrices_of_the_slices_their_half_or_oversampled_phases_change_nothing(
    matrix: list[int] | None,
) -> None:
    # Interpolation doubles both sides; nibabel's public mosaics have [128, 0, 0, 128] for slices of 128 x 128.
    made = mosaic(volume(7), header=None, number=7, times=[0.0] * 7, AcquisitionMatrix=matrix)
    for syntax in (ExplicitVRLittleEndian, ImplicitVRLittleEndian):
        assert len(tiles(file_bytes(made, syntax))) == 7


@pytest.mark.parametrize(("count", "number"), [(16, 12), (7, 6), (9, 5), (16, 15)])
def test_slices_that_the_number_does_not_count_are_refused(count: int, number: int) -> None:
    data = file_bytes(mosaic(volume(count), header=None, number=number))
    with pytest.raises(DataFault) as caught:
        tiles(data)
    assert caught.value.reason == "surplus-data"
    assert f"tile {number + 1} of a Siemens mosaic" in caught.value.detail


def test_a_colour_map_with_more_slices_than_the_number_is_refused() -> None:
    colours = np.random.default_rng(3).integers(0, 255, (8, 8, 6, 3)).astype(np.uint8)
    with pytest.raises(DataFault, match="tile 8 of a Siemens mosaic"):
        tiles(file_bytes(mosaic(colours, header=None, number=7)))


def test_empty_tiles_need_not_be_zero() -> None:
    slices = volume(9)
    slices[7:] = 2048
    data = file_bytes(mosaic(slices, header=None, number=7))
    np.testing.assert_array_equal([one.image.stored for one in tiles(data)], slices[:7])


def test_unknown_vrs_and_codecs_change_nothing() -> None:
    slices = volume(7)
    implicit = file_bytes(mosaic(slices, number=7), ImplicitVRLittleEndian)
    plain = pydicom.dcmread(io.BytesIO(file_bytes(mosaic(slices))))
    plain.compress(RLELossless)
    buffer = io.BytesIO()
    plain.save_as(buffer)
    for data in (implicit, buffer.getvalue()):
        np.testing.assert_array_equal([one.image.stored for one in tiles(data)], slices)
        assert len(volumes(data)[0].image.stored) == 7


def test_a_number_that_an_anonymizer_wrote_over_is_none() -> None:
    made = mosaic(volume(7), number=7)
    made[0x0019, 0x100A].VR, made[0x0019, 0x100A].value = "LO", "Anon"
    assert len(tiles(file_bytes(made))) == 7


def test_a_colour_map_is_cut_too() -> None:
    colours = np.random.default_rng(3).integers(0, 255, (7, 8, 6, 3)).astype(np.uint8)
    assert [one.image.stored.shape for one in tiles(file_bytes(mosaic(colours)))] == [(8, 6)] * 7


def test_an_image_of_another_vendor_is_no_mosaic() -> None:
    assert len(tiles(file_bytes(mosaic(volume(7), header=None, Manufacturer="ACME")))) == 1


def test_frames_of_newer_software_that_keep_the_word_stay_frames() -> None:
    # Its enhanced objects have the slices as frames, and still MOSAIC in ImageType (dcm2niix, issue 553).
    place, group = Dataset(), Dataset()
    place.ImagePositionPatient = [0, 0, 0]
    group.PlanePositionSequence = Sequence([place])
    made = mosaic(
        volume(1),
        header=None,
        SOPClassUID=EnhancedMRImageStorage,
        NumberOfFrames=1,
        PerFrameFunctionalGroupsSequence=Sequence([group]),
    )
    assert frames(file_bytes(made)).mosaic is None


def test_inspect_counts_the_slices_and_the_volume() -> None:
    counter = OverviewCounter()
    answers, _ = peek_batch(
        {},
        {"formats": ["dicom"] * 2},
        [file_bytes(mosaic(volume(7), SOPInstanceUID=uid)) for uid in ("1.1", "1.2")],
    )
    for answer in answers:
        counter.add(SourceFile(name="a", size_bytes=1, mtime_ns=1), HeaderPeek(**answer))
    counted = counter.result()
    assert (counted.frames, counted.volumes, counted.series) == (14, 2, 1)
    assert counted.sizes == {"6 x 8": 2}


def test_inspect_counts_a_mosaic_that_cannot_be_cut_as_a_problem() -> None:
    ((answer,), _) = peek_batch({}, {"formats": ["dicom"]}, [file_bytes(mosaic(volume(7), header=None))])
    assert (answer["reason"], answer["attributes"]["SeriesInstanceUID"]) == ("unsupported", "1.2.3")
