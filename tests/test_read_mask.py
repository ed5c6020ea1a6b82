"""Masks in the sandbox: from the files of an image's mask to class numbers on the model's grid, or a fault."""

import contextlib
import json
import random
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from imaging.annotations.masks.mask import MaskTarget
from imaging.annotations.masks.read_mask import FUNCTION, mask_item, open_dicom_mask, prepare_masks, read_mask
from imaging.annotations.masks.write_files import nifti_bytes, png_bytes
from imaging.errors import DataFault
from imaging.image.source_grid import SourceGrid
from imaging.preprocess.inverse import UNKNOWN, mask_to_model
from imaging.preprocess.spec import PreprocessSpec
from imaging.refusal_reasons import REASONS
from imaging.sandbox.pool import Pool
from tests.mask_objects import CLASSES, COLUMNS, ROWS, contour, grid, group, one_slice, rtstruct, seg, volume

TRUTH = np.random.default_rng(2).integers(0, 3, (4, ROWS, COLUMNS)).astype(np.uint8)
SLICE = PreprocessSpec(size_px=16)
VOLUME = PreprocessSpec(kind="volume", size_px=16, slices=4)
Part = Mapping[str, Any]


def setup(spec: PreprocessSpec) -> dict[str, Any]:
    return {"spec": spec.model_dump_json(), "classes": CLASSES.to_json()}


def answer(
    targets: Sequence[MaskTarget], parts: Sequence[Sequence[Part]], spec: PreprocessSpec = SLICE
) -> tuple[Any, NDArray[np.uint8]]:
    """Return the answer of a worker, as JSON, and its masks."""
    item = mask_item(targets, parts)
    value, blobs = prepare_masks(setup(spec), json.loads(json.dumps(dict(item.value))), item.blobs)
    masks = np.frombuffer(blobs[0], np.uint8).reshape(-1, *spec.shape) if blobs else np.empty(0, np.uint8)
    return json.loads(json.dumps(value)), masks


def picture(number: int, **more: Any) -> Part:
    return {"format": "picture", "content": png_bytes(TRUTH[number])} | more


def test_each_mask_comes_out_on_the_grid_of_the_model() -> None:
    targets = [one_slice(n) for n in range(3)]
    value, masks = answer(targets, [[picture(n)] for n in range(3)])
    assert value == {"masks": [[0, [], []], [1, [], []], [2, [], []]], "faults": []}
    for number, target in enumerate(targets):
        assert np.array_equal(masks[number], mask_to_model(TRUTH[number], target.grid, SLICE))


def test_a_fault_of_one_mask_costs_no_other() -> None:
    bad = {"format": "picture", "content": b"no picture"}
    value, masks = answer([one_slice(n) for n in range(3)], [[picture(0)], [bad], [picture(2)]])
    assert [number for number, *_ in value["masks"]] == [0, 2]
    assert [(number, reason) for number, reason, _ in value["faults"]] == [(1, "unreadable")]
    assert len(masks) == 2


def test_a_class_that_was_not_drawn_is_unknown_and_not_absent() -> None:
    value, _ = answer([one_slice(0)], [[picture(0, drawn=(1,))]])
    assert [unknown for _, unknown, _ in value["masks"]] == [[2]]


def test_a_file_of_a_series_is_opened_once_for_all_of_its_slices(monkeypatch: pytest.MonkeyPatch) -> None:
    opened = []

    def counted(content: Any, classes: Any) -> Any:
        opened.append(len(content))
        return open_dicom_mask(content, classes)

    monkeypatch.setattr("imaging.annotations.masks.read_mask.OPENERS", {"dicom": counted})
    frames = (TRUTH == 1).astype(np.uint8)
    part = {"format": "dicom", "content": seg(frames, [group(n, 1) for n in range(4)])}
    item = mask_item([one_slice(n) for n in range(4)], [[part]] * 4)
    assert len(item.blobs) == 1
    _, masks = answer([one_slice(n) for n in range(4)], [[part]] * 4)
    assert (len(opened), len(masks)) == (1, 4)
    bad = {"format": "dicom", "content": b"DICM"}
    assert [one[1] for one in answer([one_slice(0)] * 2, [[bad]] * 2)[0]["faults"]] == ["not-dicom"] * 2
    assert len(opened) == 2


def test_several_files_of_one_image_have_a_class_each() -> None:
    frames = [(number == TRUTH).astype(np.uint8) for number in (1, 2)]
    parts = [
        {"format": "dicom", "content": seg(one, [group(n, 1) for n in range(4)], [(1, name)])}
        for one, name in zip(frames, CLASSES.names, strict=True)
    ]
    value, masks = answer([volume()], [parts], VOLUME)
    assert value == {"masks": [[0, [], ["1.2.9"]]], "faults": []}
    assert np.array_equal(masks[0], mask_to_model(TRUTH, grid(), VOLUME))
    value, _ = answer([volume()], [parts[:1] * 2], VOLUME)
    assert [(n, reason) for n, reason, _ in value["faults"]] == [(0, "mask-segments")]


def test_slices_of_a_volume_may_have_a_file_each_and_the_others_are_unknown() -> None:
    parts = [picture(0, slice=0), picture(2, slice=2, drawn=[1])]
    value, masks = answer([volume()], [parts], VOLUME)
    wanted = TRUTH.copy()
    wanted[[1, 3]] = UNKNOWN
    assert np.array_equal(masks[0], mask_to_model(wanted, grid(), VOLUME))
    assert [unknown for _, unknown, _ in value["masks"]] == [[2]]
    value, _ = answer([volume()], [[picture(0, slice=4)]], VOLUME)
    assert value["faults"][0][1] == "mask-absent-slice"


def test_files_of_this_machine_are_opened_by_the_worker(tmp_path: Path) -> None:
    path = tmp_path / "mask.nii.gz"
    path.write_bytes(nifti_bytes(TRUTH, grid()))
    value, masks = answer([volume()], [[{"format": "nifti", "content": path}]], VOLUME)
    assert (value["faults"], masks.max()) == ([], 2)


def test_a_damaged_mask_is_a_fault_with_a_reason_wherever_it_is_cut() -> None:
    whole = {
        "dicom": [
            seg((TRUTH == 1).astype(np.uint8), [group(n, 1) for n in range(4)]),
            rtstruct((1, "blood pool", [contour(1, [(1, 1), (4, 1), (4, 4)])])),
        ],
        "nifti": [nifti_bytes(TRUTH, grid()), nifti_bytes(TRUTH, grid(), compressed=False)],
    }
    for form, contents in whole.items():
        for content in contents:
            for share in range(1, 10):
                try:
                    read_mask(form, content[: len(content) * share // 10], volume(), CLASSES)
                except DataFault as fault:
                    assert fault.reason in REASONS or fault.reason == "not-dicom"
                else:
                    pytest.fail("a mask that is cut short was read")


def test_changed_bytes_are_read_or_are_a_fault_with_a_reason() -> None:
    drawn = random.Random(4)
    files = [
        ("dicom", seg(TRUTH, [group(n, None) for n in range(4)], kind="LABELMAP")),
        ("dicom", rtstruct((1, "blood pool", [contour(1, [(1, 1), (4, 1), (4, 4)])]))),
        ("nifti", nifti_bytes(TRUTH, grid(), compressed=False)),
    ]
    for number in range(60):
        form, whole = files[number % len(files)]
        changed = bytearray(whole)
        changed[drawn.randrange(len(changed))] = drawn.randrange(256)
        with contextlib.suppress(DataFault):
            assert read_mask(form, bytes(changed), volume(), CLASSES).classes.shape == TRUTH.shape


def test_no_identifier_is_in_a_fault() -> None:
    secret = "1.2.840.99.77"
    for changes in ({"FrameOfReferenceUID": secret}, {"SOPClassUID": secret}):
        with pytest.raises(DataFault) as caught:
            read_mask("dicom", seg(TRUTH[:1], [group(0, 1)], **changes), volume(), CLASSES)
        assert secret not in str(caught.value)


def test_a_target_comes_back_from_json() -> None:
    for target in (volume(), one_slice(1), MaskTarget(grid=SourceGrid((3, 4)), frame=2)):
        there = json.loads(json.dumps(target.to_json()))
        assert MaskTarget.from_json(there).to_json() == target.to_json()


@pytest.mark.slow
def test_the_sandbox_reads_masks() -> None:
    item = mask_item([one_slice(0)], [[picture(0)]])
    with Pool(FUNCTION, setup(SLICE), 1) as pool:
        (outcome,) = pool.map([item])
    assert not isinstance(outcome, DataFault)
    assert outcome.value["masks"] == [[0, [], []]]
    assert np.array_equal(
        np.frombuffer(outcome.blobs[0], np.uint8).reshape(SLICE.shape),
        mask_to_model(TRUTH[0], one_slice(0).grid, SLICE),
    )
