"""Preparation of one payload in a worker: rows with images, or one fault and the study that it costs."""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from pydicom.data import get_testdata_file

from imaging.dataset.ingest.prepare_files import COLUMNS, item_of, prepare_payloads
from imaging.dataset.split.fingerprint import fingerprints
from imaging.errors import DataFault, EnvironmentFault
from imaging.image.image import Image
from imaging.image.instance import Instance
from imaging.preprocess.spec import PreprocessSpec
from imaging.sources.protocol import Payload
from tests.synthetic import instance, write_dicom

STUDY = "1.2.826.0.1.77"
CT = PreprocessSpec(size_px=16)
VOLUME = PreprocessSpec(kind="volume", size_px=16, slices=4)
SOLID = instance(7, image=Image(stored=np.zeros((5, 16, 16), np.uint8)))


@dataclass(frozen=True)
class FileOutcome:
    """Answer of a worker on one payload: rows by name with their images, or why there are none."""

    made: tuple[tuple[dict[str, Any], NDArray[np.uint8]], ...]
    fault: DataFault | None
    study_uid: str


def outcome_of(payload: Payload, spec: PreprocessSpec = CT, formats: Any = None) -> FileOutcome:
    """Return the answer of a worker on a payload."""
    (outcome,) = outcomes_of([payload], spec, formats)
    return outcome


def outcomes_of(
    payloads: Sequence[Payload], spec: PreprocessSpec = CT, formats: Any = None
) -> list[FileOutcome]:
    item = item_of(payloads)
    more = {"formats": formats} if formats else {}
    # As JSON, which is how it travels.
    sent = json.loads(json.dumps(dict(item.value)))
    value, blobs = prepare_payloads({"spec": spec.model_dump_json()}, sent, item.blobs, **more)
    value = json.loads(json.dumps(value))
    rows = [dict(zip(COLUMNS, row, strict=True)) for row in value["rows"]]
    images = np.frombuffer(blobs[0], np.uint8).reshape(-1, *spec.shape) if blobs else []
    faults = {number: (DataFault(reason, detail), study) for number, reason, detail, study in value["faults"]}
    return [
        FileOutcome(
            tuple((row, one) for row, one in zip(rows, images, strict=True) if row["payload"] == number),
            *faults.get(number, (None, "")),
        )
        for number in range(len(payloads))
    ]


def of_file(content: Path | bytes, spec: PreprocessSpec = CT) -> FileOutcome:
    return outcome_of(Payload(format="dicom", name="x", contents=(content,)), spec)


def of(*made: Instance, spec: PreprocessSpec) -> FileOutcome:
    """Return the answer on instances that are there already."""
    payload = Payload(format="made", name="x", contents=(b"",))
    return outcome_of(payload, spec, {"made": lambda *_: iter(made)})


def reason(outcome: FileOutcome) -> str:
    assert outcome.fault is not None
    return outcome.fault.reason


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return write_dicom(tmp_path / "x", np.full((64, 64), 40), StudyInstanceUID=STUDY)


def test_a_good_file_is_a_row_with_its_image(path: Path) -> None:
    ((row, image),) = of_file(path).made
    values = [row[name] for name in ("study_uid", "frame", "rows", "modality")]
    assert values == [STUDY, 0, 64, "CT"]
    assert (image.shape, int(image[0, 0])) == ((16, 16), 128)


def test_a_file_and_its_bytes_make_the_same(path: Path) -> None:
    (first, second) = (of_file(path).made[0], of_file(path.read_bytes()).made[0])
    assert first[0] == second[0]
    np.testing.assert_array_equal(first[1], second[1])


def test_files_one_after_the_other_keep_their_images_apart(tmp_path: Path) -> None:
    paths = [write_dicom(tmp_path / str(level), np.full((64, 64), level)) for level in (-500, 40, 500)]
    outcome = [of_file(path) for path in paths]
    assert [int(one.made[0][1].mean()) for one in outcome] == [0, 128, 255]


@pytest.mark.parametrize("as_bytes", [False, True], ids=["path", "bytes"])
def test_a_file_that_is_cut_is_one_fault_with_its_study(path: Path, as_bytes: bool) -> None:
    path.write_bytes(path.read_bytes()[:-100])
    outcome = of_file(path.read_bytes() if as_bytes else path)
    assert (reason(outcome), outcome.study_uid, outcome.made) == ("truncated", STUDY, ())


@pytest.mark.filterwarnings("ignore:Invalid value for VR UI")
@pytest.mark.parametrize("uid", ["1.2.x", "DOE^JANE", None])
def test_a_study_that_is_no_uid_is_left_out(tmp_path: Path, uid: str | None) -> None:
    outcome = of_file(write_dicom(tmp_path / "x", StudyInstanceUID=uid))
    assert (reason(outcome), outcome.study_uid) == ("missing-identifier", "")


def test_what_is_no_dicom_file_costs_no_study() -> None:
    outcome = of_file(b"Dear colleague")
    assert (reason(outcome), outcome.study_uid) == ("not-dicom", "")


def test_each_frame_is_a_row() -> None:
    name = get_testdata_file("rtdose_rle.dcm", download=False)
    assert isinstance(name, str)
    outcome = of_file(Path(name), PreprocessSpec(modality="RTDOSE", size_px=16))
    assert [row["frame"] for row, _ in outcome.made] == list(range(1, 16))
    assert len({row["pixel_blake3"] for row, _ in outcome.made}) == 15


def test_a_volume_among_slices_is_unsupported() -> None:
    outcome = of(instance(1), SOLID, spec=CT)
    assert reason(outcome) == "unsupported"
    assert "the image is a volume, the configuration asks for kind 'slice'" in str(outcome.fault)


def test_a_slice_among_volumes_is_unsupported() -> None:
    outcome = of(instance(1), spec=VOLUME)
    assert reason(outcome) == "unsupported"
    assert "the image is a slice, the configuration asks for kind 'volume'" in str(outcome.fault)


def test_a_volume_has_the_shape_of_the_spec() -> None:
    ((row, image),) = of(SOLID, spec=VOLUME).made
    assert (image.shape, row["rows"], row["columns"]) == ((4, 16, 16), 16, 16)


def test_payloads_of_one_item_keep_their_rows_and_faults_apart(tmp_path: Path) -> None:
    paths = [
        write_dicom(tmp_path / str(n), np.full((64, 64), level)) for n, level in enumerate((-500, 0, 500))
    ]
    paths[1].write_bytes(b"Dear colleague")
    payloads = [Payload(format="dicom", name="x", contents=(path,)) for path in paths]
    first, bad, last = outcomes_of(payloads)
    assert (int(first.made[0][1].mean()), reason(bad), int(last.made[0][1].mean())) == (0, "not-dicom", 255)


def test_a_payload_of_several_files_takes_its_own_alone() -> None:
    kinds = {"made": lambda payload, _: iter([instance(len(payload.contents))])}
    payloads = [Payload(format="made", name="x", contents=(b"",) * count) for count in (2, 0, 3)]
    outcome = outcomes_of(payloads, formats=kinds)
    assert [one.made[0][0]["patient_id"] for one in outcome] == ["P2", "P0", "P3"]


def test_metadata_of_a_source_reaches_the_reader() -> None:
    kinds = {"made": lambda payload, _: iter([instance(1, patient_id=dict(payload.metadata)["patient"])])}
    payload = Payload(format="made", name="x", contents=(), metadata=(("patient", "P-1"),))
    assert outcome_of(payload, formats=kinds).made[0][0]["patient_id"] == "P-1"


def test_fingerprints_come_with_the_images() -> None:
    busy = np.random.default_rng(3).integers(0, 256, (3, 64, 64), np.uint8)
    kinds = {"made": lambda *_: iter(instance(n, image=Image(stored=one)) for n, one in enumerate(busy))}
    item = item_of([Payload(format="made", name="x", contents=())])
    _, (images, prints, _) = prepare_payloads({"spec": CT.model_dump_json()}, item.value, item.blobs, kinds)
    wanted = fingerprints(np.frombuffer(images, np.uint8).reshape(3, 16, 16))
    assert bytes(prints) == wanted.tobytes()


def test_a_fault_of_the_environment_is_no_fault_of_the_file() -> None:
    def fail(*_: object) -> Any:
        raise EnvironmentFault("no decoder")

    with pytest.raises(EnvironmentFault):
        outcome_of(Payload(format="made", name="x", contents=(b"",)), CT, {"made": fail})
