"""Reader of NIfTI files: orientation and values of volumes, and the reasons of refused files."""

import gzip
import struct
from pathlib import Path
from typing import Any

import nibabel
import numpy as np
import pytest
from hypothesis import given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from imaging.errors import DataFault
from imaging.formats import nifti
from imaging.formats.nifti import read_nifti
from imaging.image.image import Image
from imaging.image.instance import Instance
from imaging.image.window import Window
from imaging.preprocess.spec import PreprocessSpec
from imaging.preprocess.volume import prepare_volume
from imaging.sources.protocol import Payload

Array = NDArray[Any]
SHIPPED = sorted((Path(nibabel.__file__).parent / "tests" / "data").glob("*.nii*"))
METADATA = (("patient", "P1"),)
# Left, posterior, superior: as it is stored here, so nothing is turned.
LPS = np.diag([-1.0, -2.0, 3.0, 1.0])
VOXELS = np.arange(4 * 5 * 6, dtype=np.int16).reshape(4, 5, 6)


def written(voxels: Array, affine: Array = LPS, kind: Any = nibabel.Nifti1Image, **header: Any) -> bytes:
    image = kind(voxels, affine, dtype=voxels.dtype)
    for name, value in header.items():
        image.header[name] = value
    return bytes(image.to_bytes())


def changed(data: bytes, layout: str, position: int, *values: float) -> bytes:
    made = bytearray(data)
    struct.pack_into(layout, made, position, *values)
    return bytes(made)


def volumes(content: bytes | Path, metadata: tuple[tuple[str, str], ...] = METADATA) -> list[Instance]:
    return list(
        read_nifti(Payload(format="nifti", name="d/a.nii", contents=(content,), metadata=metadata), "MR")
    )


def image(content: bytes | Path) -> Image:
    (result,) = volumes(content)
    return result.image


def reason(content: bytes) -> str:
    with pytest.raises(DataFault) as caught:
        volumes(content)
    return caught.value.reason


def test_a_volume_is_slices_of_rows_of_columns() -> None:
    np.testing.assert_array_equal(image(written(VOXELS)).stored, VOXELS.T)


def test_the_spacing_is_that_of_slices_rows_and_columns() -> None:
    assert image(written(VOXELS)).spacing_mm == (3, 2, 1)


@pytest.mark.parametrize(("unit", "factor"), [(1, 1000), (2, 1), (3, 0.001), (0, 1)])
def test_the_spacing_is_in_mm(unit: int, factor: float) -> None:
    assert image(written(VOXELS, xyzt_units=unit)).spacing_mm == pytest.approx(
        (3 * factor, 2 * factor, factor)
    )


@pytest.mark.parametrize("order", [(0, 1, 2), (1, 2, 0), (2, 1, 0), (2, 0, 1)])
@pytest.mark.parametrize("signs", [(1, 1, 1), (-1, 1, 1), (1, -1, -1), (-1, -1, -1)])
def test_however_a_volume_is_stored_it_lies_the_same(order: tuple[int, ...], signs: tuple[int, ...]) -> None:
    affine = LPS[:, [*order, 3]] * [*signs, 1]
    stored = VOXELS.transpose(order)[:: signs[0], :: signs[1], :: signs[2]]
    result = image(written(np.ascontiguousarray(stored), affine))
    np.testing.assert_array_equal(result.stored, VOXELS.T)
    assert result.spacing_mm == (3, 2, 1)


def test_a_tilted_volume_lies_by_its_nearest_axes() -> None:
    turn = np.eye(4)
    turn[:2, :2] = [[np.cos(0.5), -np.sin(0.5)], [np.sin(0.5), np.cos(0.5)]]
    result = image(written(VOXELS, turn @ LPS))
    np.testing.assert_array_equal(result.stored, VOXELS.T)
    assert result.spacing_mm == pytest.approx((3, 2, 1))


def test_slope_and_intercept_are_applied() -> None:
    result = image(written(VOXELS, scl_slope=2.0, scl_inter=-1000.0))
    np.testing.assert_array_equal(result.values, VOXELS.T * 2 - 1000)


def test_a_slope_of_zero_is_none() -> None:
    np.testing.assert_array_equal(image(written(VOXELS, scl_slope=0.0, scl_inter=7.0)).values, VOXELS.T)


def test_the_window_of_the_file_is_kept() -> None:
    (voi,) = image(written(VOXELS, cal_min=-100.0, cal_max=300.0)).vois
    np.testing.assert_allclose(voi.show(np.array([-100, 100, 300], np.float32)), [0, 0.5, 1])


def test_without_a_window_there_is_none() -> None:
    assert image(written(VOXELS)).vois == ()


@pytest.mark.parametrize("dtype", ["u1", "i1", "i2", "u2", "i4", "f4", "f8"])
def test_values_keep_their_type(dtype: str) -> None:
    voxels = VOXELS.astype(dtype)
    result = image(written(voxels))
    np.testing.assert_array_equal(result.stored, voxels.T)
    assert result.stored.dtype == np.dtype(dtype)


def test_a_file_of_the_other_byte_order_is_read() -> None:
    header = nibabel.Nifti1Header(endianness=">")
    header.set_data_dtype(">i2")
    data = nibabel.Nifti1Image(VOXELS.astype(">i2"), LPS, header).to_bytes()
    assert data[:4] == struct.pack(">i", 348)
    result = image(data)
    np.testing.assert_array_equal(result.stored, VOXELS.T)
    assert result.stored.dtype.isnative


def test_nifti_2_is_read() -> None:
    result = image(written(VOXELS, kind=nibabel.Nifti2Image))
    np.testing.assert_array_equal(result.stored, VOXELS.T)


def test_a_compressed_file_is_read() -> None:
    np.testing.assert_array_equal(image(gzip.compress(written(VOXELS))).stored, VOXELS.T)


def test_a_path_is_read_like_bytes(tmp_path: Path) -> None:
    (tmp_path / "a").write_bytes(written(VOXELS))
    np.testing.assert_array_equal(image(tmp_path / "a").stored, VOXELS.T)


def test_a_series_in_time_is_one_volume_a_frame() -> None:
    voxels = np.stack([VOXELS, VOXELS + 1000, VOXELS * 2], axis=-1)
    result = volumes(written(voxels))
    assert [one.frame for one in result] == [1, 2, 3]
    for one, expected in zip(result, np.moveaxis(voxels, -1, 0), strict=True):
        np.testing.assert_array_equal(one.image.stored, expected.T)


def test_dimensions_of_one_at_the_end_do_not_count() -> None:
    assert [one.frame for one in volumes(written(VOXELS[..., None, None]))] == [0]


def test_two_dimensions_are_an_image() -> None:
    result = image(written(VOXELS[:, :, 0]))
    np.testing.assert_array_equal(result.stored, VOXELS[:, :, 0].T)
    assert result.spacing_mm == (2, 1)


def test_two_dimensions_may_stand_upright() -> None:
    affine = LPS[:, [0, 2, 1, 3]]
    result = image(written(VOXELS[:, 0, :], affine))
    np.testing.assert_array_equal(result.stored, VOXELS[:, 0, :].T)
    assert result.spacing_mm == (3, 1)


def test_a_volume_has_its_name_and_the_patient_of_the_metadata() -> None:
    (result,) = volumes(written(VOXELS))
    assert (result.patient_id, result.sop_instance_uid, result.series_uid) == ("P1", "d/a.nii", "d/a.nii")
    assert result.attributes == {"modality": "MR", "rows": 5, "columns": 4}


def test_without_a_patient_a_volume_is_refused() -> None:
    with pytest.raises(DataFault) as caught:
        volumes(written(VOXELS), ())
    assert caught.value.reason == "missing-identifier"


BAD: dict[str, tuple[str, bytes]] = {
    "empty": ("truncated", b""),
    "no header": ("unreadable", bytes(1000)),
    "pair": ("unreadable", written(VOXELS).replace(b"n+1\0", b"ni1\0", 1)),
    "rank": ("undecodable", changed(written(VOXELS), "<h", 40, 9)),
    "negative": ("undecodable", changed(written(VOXELS), "<h", 42, -4)),
    "zero": ("undecodable", changed(written(VOXELS), "<h", 42, 0)),
    "huge": ("too-large", changed(written(VOXELS), "<hhh", 42, 32767, 32767, 32767)),
    "long": ("truncated", changed(written(VOXELS), "<h", 42, 4000)),
    "vector": ("unsupported", written(np.zeros((2, 2, 2, 1, 3), np.float32))),
    "complex": ("unsupported", written(np.zeros((2, 2, 2), np.complex64))),
    "type": ("undecodable", changed(written(VOXELS), "<h", 70, 7)),
    "offset": ("undecodable", changed(written(VOXELS), "<f", 108, 8.0)),
    "no offset": ("undecodable", changed(written(VOXELS), "<f", 108, float("nan"))),
    "affine": ("undecodable", changed(written(VOXELS), "<f", 280, float("nan"))),
    "flat": ("undecodable", changed(written(VOXELS), "<4f", 280, 0, 0, 0, 0)),
    "slope": ("undecodable", written(VOXELS.astype(np.float32), scl_slope=1e38)),
    "no numbers": ("undecodable", written(VOXELS.astype(np.float32) * np.nan)),
    "infinite": ("undecodable", written(np.where(VOXELS, VOXELS, np.inf).astype(np.float32))),
    "infinite beside nan": (
        "undecodable",
        written(np.where(VOXELS > 1, VOXELS, [np.inf, *[np.nan] * 5]).astype(np.float32)),
    ),
    "bomb": ("inflate-bomb", gzip.compress(changed(written(VOXELS), "<hhh", 42, 1000, 1000, 1000))),
    "tail": ("inflate-bomb", gzip.compress(written(VOXELS) + bytes(2**21))),
    "checksum": ("unreadable", gzip.compress(written(VOXELS))[:-8] + bytes(8)),
}


@pytest.mark.filterwarnings("ignore::RuntimeWarning")
@pytest.mark.parametrize("name", BAD)
def test_a_bad_file_has_its_reason(name: str) -> None:
    expected, data = BAD[name]
    assert reason(data) == expected


@pytest.mark.parametrize("pack", [bytes, gzip.compress], ids=["plain", "gzip"])
@hypothesis_settings(max_examples=100)
@given(share=st.floats(0, 1, exclude_max=True))
def test_a_file_cut_anywhere_is_truncated(pack: Any, share: float) -> None:
    data = pack(written(VOXELS))
    assert reason(data[: int(share * len(data))]) in ("truncated", "unreadable")


@pytest.mark.slow
@hypothesis_settings(max_examples=300)
@pytest.mark.filterwarnings("ignore::RuntimeWarning")
@given(changes=st.lists(st.tuples(st.integers(0, 351), st.integers(0, 255)), min_size=1, max_size=6))
def test_a_header_changed_anywhere_is_read_or_a_fault(changes: list[tuple[int, int]]) -> None:
    data = bytearray(written(VOXELS))
    for position, value in changes:
        data[position] = value
    try:
        assert volumes(bytes(data))
    except DataFault as bad:
        assert bad.reason


def test_nothing_beyond_the_volumes_is_inflated(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[int] = []
    inflate = gzip.GzipFile.read

    def note(file: gzip.GzipFile, size: int = -1) -> bytes:
        asked.append(size)
        return inflate(file, size)

    monkeypatch.setattr(nifti.gzip.GzipFile, "read", note)
    volumes(gzip.compress(written(VOXELS)))
    assert min(asked) > 0
    assert sum(asked) <= len(written(VOXELS)) + nifti.TRAILING_BYTES


@pytest.mark.parametrize("path", SHIPPED, ids=lambda path: path.name)
def test_shipped_files_are_read_as_nibabel_reads_them(path: Path) -> None:
    try:
        result = volumes(path)
    except DataFault as bad:
        assert (path.name, bad.reason) in {
            ("row_major.dconn.nii", "unsupported"),  # a matrix of connections in six dimensions
        }
        return
    expected = np.asarray(nibabel.as_closest_canonical(nibabel.load(path)).dataobj)
    expected = expected[..., None] if expected.ndim == 3 else expected
    for one, voxels in zip(result, np.moveaxis(expected, -1, 0), strict=True):
        mask = one.image.padded
        values = one.image.values if mask is None else np.where(mask, np.nan, one.image.values)
        np.testing.assert_allclose(values, voxels[::-1, ::-1].T, rtol=1e-5)


def test_there_are_shipped_files() -> None:
    assert len(SHIPPED) >= 8


@pytest.mark.parametrize("kind", [np.float32, np.float64])
@pytest.mark.parametrize("order", ["<", ">"])
@pytest.mark.parametrize("slope", [1.0, -2.5])
def test_nan_is_padding_and_a_finding(kind: Any, order: str, slope: float) -> None:
    # Analysis tools (SPM, FSL) write NaN outside of the brain.
    voxels = VOXELS.astype(np.dtype(kind).newbyteorder(order))
    voxels[:2] = np.nan
    (one,) = volumes(written(voxels, scl_slope=slope, scl_inter=3.0))
    mask = one.image.padded
    assert mask is not None
    np.testing.assert_array_equal(mask, np.isnan(voxels.T))
    np.testing.assert_allclose(one.image.values[~mask], (voxels.T * slope + 3)[~mask], rtol=1e-6)
    assert one.findings == ("no-number",)
    assert np.isfinite(one.image.values).all()


@pytest.mark.parametrize("spacing", [None, (3.0, 2.0, 2.0)])
@pytest.mark.parametrize("order", ["window-resize", "resize-window"])
def test_nan_is_black_in_a_prepared_volume(order: Any, spacing: Any) -> None:
    voxels = np.full((32, 32, 16), 100, np.float32)
    voxels[:16] = np.nan
    window = Window(center=50, width=101)
    spec = PreprocessSpec(kind="volume", window=window, size_px=16, slices=4, order=order, spacing_mm=spacing)
    with np.errstate(all="raise", under="ignore"):
        levels = prepare_volume(image(written(voxels)), spec)
    assert set(np.unique(levels)) <= {0, 255}
    assert 0 < levels.mean() < 255


def test_a_volume_without_nan_has_no_finding() -> None:
    (one,) = volumes(written(VOXELS.astype(np.float32)))
    assert (one.findings, one.image.padding) == ((), None)


def test_each_volume_in_time_has_nan_of_its_own() -> None:
    voxels = np.stack([VOXELS, VOXELS], -1).astype(np.float32)
    voxels[0, 0, 0, 1] = np.nan
    assert [one.findings for one in volumes(written(voxels))] == [(), ("no-number",)]


@pytest.mark.parametrize("packed", [False, True])
def test_a_volume_that_the_header_does_not_count_is_refused(packed: bool) -> None:
    # `dim` says one volume, the bytes are of two: nibabel drops the second without a word.
    content = written(VOXELS) + (VOXELS + 1).tobytes()
    assert reason(gzip.compress(content) if packed else content) == "surplus-data"


@pytest.mark.parametrize("rest", [b"x" * 8, VOXELS[:3].tobytes(), bytes(VOXELS.nbytes)])
def test_what_is_a_row_or_more_or_a_volume_of_zeros_is_refused(rest: bytes) -> None:
    assert reason(written(VOXELS) + rest) == "surplus-data"


@pytest.mark.parametrize("rest", [b"x" * 7, bytes(VOXELS.nbytes - 1)])
@pytest.mark.parametrize("packed", [False, True])
def test_padding_behind_the_last_volume_is_a_finding(rest: bytes, packed: bool) -> None:
    content = written(VOXELS) + rest
    (one,) = volumes(gzip.compress(content) if packed else content)
    assert one.findings == ("padded-pixels",)
    np.testing.assert_array_equal(one.image.stored, VOXELS.T)
