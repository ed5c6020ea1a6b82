"""Names that survive growth: digests, defaults and reading of configurations that another release has stored."""

import logging
import tomllib
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, Literal

import pytest
from pydantic import BaseModel, Field, ValidationError
from pydantic_core import PydanticUndefined, to_jsonable_python

from imaging.deidentify.options import DeidentifyOptions
from imaging.errors import UserFault
from imaging.image.window import Window
from imaging.preprocess.spec import PreprocessSpec
from imaging.release_compatibility import (
    RELEASE,
    Since,
    canonical,
    canonical_json,
    check_release,
    config_digest,
    log_once,
    needed_release,
    read_config,
)
from models.config import (
    AugmentConfig,
    ComputeConfig,
    LossConfig,
    OptimizerConfig,
    PatchConfig,
    StartConfig,
    TrainConfig,
)
from models.objectives.aggregation import AggregateConfig

FIRST = "0.1.0"
REQUIRED = "required"
OPTIMIZER = {
    "name": "adamw",
    "learning_rate": 0.003,
    "momentum": 0.9,
    "weight_decay": 0.02,
    "schedule": "one-cycle",
    "l1_penalty": 0.0,
}
AUGMENT = {
    "flip": False,
    "shift_fraction": 0.06,
    "rotate_deg": 8.0,
    "scale": 0.08,
    "contrast": 0.15,
    "brightness": 0.08,
}
FIELDS: Mapping[str, Mapping[type[BaseModel], Mapping[str, Any]]] = {
    FIRST: {
        PreprocessSpec: {
            "modality": "CT",
            "kind": "slice",
            "window": {"center": 40.0, "width": 400.0},
            "window_number": 1,
            "order": "window-resize",
            "size_px": 64,
            "slices": 32,
            "spacing_mm": None,
        },
        Window: {"center": REQUIRED, "width": REQUIRED},
        TrainConfig: {
            "network": "residual_small",
            "epochs": 10,
            "batch_size": 32,
            "workers": 2,
            "optimizer": OPTIMIZER,
            "class_weights": "balanced",
            "augment": AUGMENT,
            "ema_decay": 0.98,
            "patience": 10,
            "measure": "auroc",
            "precision": "auto",
            "seed": 0,
            "max_failures": 2,
        },
        OptimizerConfig: OPTIMIZER,
        AugmentConfig: AUGMENT,
        DeidentifyOptions: {
            "dates": "shift",
            "patient_characteristics": False,
            "device_identity": False,
            "uids": False,
            "safe_private": False,
            "descriptors": False,
            "graphics": False,
            "structured": False,
            "burned_in": "quarantine",
            "documents": "quarantine",
            "faces": "quarantine",
            "patient_variants": "report",
        },
    },
    "0.2.0": {
        PreprocessSpec: {"slide_mpp": None, "slide_tissue": 0.1},
        TrainConfig: {
            "objective": "classification",
            "patch": {},
            "loss": {},
            "compute": {},
            "start": {},
            "embedding": False,
            "aggregate": {},
        },
        OptimizerConfig: {"warm_up": None, "clip_norm": 0.0, "accumulation": 1},
        AugmentConfig: {"flip_vertical": False, "mixup_alpha": 0.0},
        PatchConfig: {"size_px": None, "slices": None, "class_share": 0.33},
        LossConfig: {"label_smoothing": 0.0, "focal_gamma": 0.0},
        ComputeConfig: {"compile": False, "sync_batch_norm": False},
        StartConfig: {"weights": "", "mode": "full"},
        AggregateConfig: {"over": "image", "rule": "mean"},
    },
}
"""The fields that each release has brought, in their order, with the defaults with which they came.

Add to it, and change nothing in it: what is stored under these names would be made anew, or read as something else.
"""
DIGESTS = [
    (PreprocessSpec, {}, "875ab743c3bcffea"),
    (PreprocessSpec, {"window": "file"}, "e4e61a2cffbc4856"),
    (PreprocessSpec, {"size_px": 32}, "6e63f5d811cd3e72"),
    (PreprocessSpec, {"window": {"center": -300, "width": 1400}, "size_px": 224}, "bee8f55cd4e01685"),
    (PreprocessSpec, {"kind": "volume", "slices": 8, "spacing_mm": (2.5, 0.7, 0.7)}, "bcbd4639a566a731"),
    (
        PreprocessSpec,
        # The window as it is stored; release 0.1.0 gave that of CT to all modalities.
        {
            "order": "resize-window",
            "window_number": 2,
            "modality": "MR",
            "window": {"center": 40, "width": 400},
        },
        "a08c33c12bd771c2",
    ),
    (PreprocessSpec, PreprocessSpec.grey_levels(28).model_dump(), "cd93b7118716539a"),
    (TrainConfig, {}, "865a7c93d93ce9be"),
    (TrainConfig, {"network": "small_cnn", "epochs": 3, "workers": 1, "batch_size": 8}, "50d17210b7507d1c"),
    (
        TrainConfig,
        # Floats that JSON and Python write in different ways.
        {"optimizer": {"name": "sgd", "learning_rate": 1e-5, "weight_decay": 1e-16}},
        "84a1a7d5349f3ba7",
    ),
    (TrainConfig, {"augment": {"flip": True, "rotate_deg": 0}}, "4ab7bd9f25c42e69"),
    (
        TrainConfig,
        {"class_weights": "none", "ema_decay": 0, "measure": "loss", "precision": "bf16", "seed": 7},
        "f2acd2fa666fda08",
    ),
    (DeidentifyOptions, {}, "b910ddb100137da7"),
    (DeidentifyOptions, {"dates": "remove", "uids": True}, "8519df99eae84d48"),
]
"""As commit 16ca9f6, release 0.1.0, has computed them."""


class GrownWindow(Window):
    soft: Annotated[float, Since("0.3.0")] = 0.0


class GrownSpec(PreprocessSpec):
    """Of a later release: a new field between the others, and one inside of a window."""

    modality: str = "CT"
    sharpen: Annotated[float, Since("0.2.0")] = Field(0.0, ge=0)
    window: GrownWindow | Literal["file"] = GrownWindow(center=40, width=400)


class Bag(BaseModel):
    specs: tuple[GrownSpec, ...] = ()


def faults(
    kind: type[BaseModel], fields: Mapping[str, Mapping[type[BaseModel], Mapping[str, Any]]]
) -> list[str]:
    """Return which fields would give another name, or be read as something else, than the release that brought them."""
    messages = []
    now = {FIRST: dict[str, Any]()}
    for name, field in kind.model_fields.items():
        default = field.get_default(call_default_factory=True)
        release = next((mark.release for mark in field.metadata if isinstance(mark, Since)), FIRST)
        if isinstance(default, BaseModel):
            # Its own later fields stand under its own name.
            plain = canonical(default)
        else:
            plain = REQUIRED if default is PydanticUndefined else to_jsonable_python(default)
        now.setdefault(release, {})[name] = plain
    for release in {**fields, **now}:
        pinned, declared = fields.get(release, {}).get(kind, {}), now.get(release, {})
        for name in {**pinned, **declared}:
            if name not in declared:
                messages.append(f"{kind.__name__}.{name} of {release} is gone: its name is stored")
            elif name not in pinned:
                messages.append(f"{kind.__name__}.{name} is new: mark it with Since, and add it to FIELDS")
            elif pinned[name] != declared[name]:
                messages.append(
                    f"{kind.__name__}.{name} had the default {pinned[name]} and has {declared[name]}"
                )
        if not messages and list(pinned) != list(declared):
            messages.append(f"{kind.__name__} has the fields of {release} in another order")
    return messages


@pytest.mark.parametrize("kind", FIELDS[FIRST])
def test_no_field_renames_what_was_made(kind: type[BaseModel]) -> None:
    assert faults(kind, FIELDS) == []


@pytest.mark.parametrize(
    ("field", "default", "fault"),
    [
        ("epochs", 12, "Changed.epochs had the default 10 and has 12"),
        ("rounds", 10, "Changed.rounds is new: mark it with Since, and add it to FIELDS"),
    ],
)
def test_a_field_that_would_rename_is_named(field: str, default: int, fault: str) -> None:
    changed = type("Changed", (TrainConfig,), {"__annotations__": {field: int}, field: default})
    pinned = {release: {changed: kinds[TrainConfig]} for release, kinds in FIELDS.items()}
    assert faults(changed, pinned) == [fault]


def test_a_field_that_is_gone_is_named() -> None:
    class Changed(BaseModel):
        center: float

    assert faults(Changed, {FIRST: {Changed: FIELDS[FIRST][Window]}}) == [
        "Changed.width of 0.1.0 is gone: its name is stored"
    ]


def test_another_order_of_fields_is_named() -> None:
    class Changed(BaseModel):
        width: float
        center: float

    assert faults(Changed, {FIRST: {Changed: FIELDS[FIRST][Window]}}) == [
        "Changed has the fields of 0.1.0 in another order"
    ]


@pytest.mark.parametrize(("default", "named"), [(0.0, []), (0.5, ["soft"])])
def test_a_marked_field_keeps_the_default_with_which_it_came(default: float, named: list[str]) -> None:
    pinned = {FIRST: {GrownWindow: FIELDS[FIRST][Window]}, "0.3.0": {GrownWindow: {"soft": default}}}
    assert [name for name in ("soft", "center") if name in str(faults(GrownWindow, pinned))] == named


@pytest.mark.parametrize(("kind", "values", "digest"), DIGESTS)
def test_configuration_digests_are_as_in_release_0_1_0(
    kind: type[BaseModel], values: Mapping[str, Any], digest: str
) -> None:
    assert config_digest(kind.model_validate(values)) == digest


@pytest.mark.parametrize(("kind", "values", "digest"), DIGESTS)
def test_a_new_field_with_its_default_changes_no_digest(
    kind: type[BaseModel], values: Mapping[str, Any], digest: str
) -> None:
    new = {"__annotations__": {"new": Annotated[int, Since("0.2.0")]}, "new": 3}
    grown = type("Grown", (kind,), new)
    assert config_digest(grown.model_validate(values)) == digest
    assert config_digest(grown.model_validate(dict(values) | {"new": 4})) != digest


def test_the_specification_and_the_training_have_the_common_digest() -> None:
    assert (PreprocessSpec().digest, TrainConfig().digest) == ("875ab743c3bcffea", "865a7c93d93ce9be")
    assert DeidentifyOptions().digest() == "b910ddb100137da7"


@pytest.mark.parametrize("window", [{"center": 40, "width": 400}, "file"])
def test_a_field_in_the_middle_or_of_a_part_changes_no_digest(window: Any) -> None:
    assert canonical_json(GrownSpec(window=window)) == canonical_json(PreprocessSpec(window=window))


def test_a_value_of_a_new_field_is_written_and_covered() -> None:
    changed = [GrownSpec(sharpen=1), GrownSpec(window=GrownWindow(center=40, width=400, soft=1))]
    assert canonical(changed[0])["sharpen"] == 1
    assert canonical(changed[1])["window"]["soft"] == 1
    assert len({one.digest for one in (*changed, GrownSpec())}) == 3


def test_new_fields_of_configurations_in_a_sequence_are_left_out_too() -> None:
    assert canonical(Bag(specs=(GrownSpec(),))) == {"specs": [canonical(PreprocessSpec())]}


def test_what_is_written_names_the_release_it_needs() -> None:
    soft = GrownWindow(center=1, width=2, soft=1)
    needs = [
        needed_release(one) for one in (GrownSpec(), GrownSpec(sharpen=1), GrownSpec(sharpen=1, window=soft))
    ]
    assert needs == ["", "0.2.0", "0.3.0"]


def test_the_release_is_that_of_the_package() -> None:
    project = tomllib.loads((Path(__file__).parent.parent / "pyproject.toml").read_text())["project"]
    assert project["version"] == RELEASE


def test_what_a_newer_release_writes_with_defaults_is_read() -> None:
    assert read_config(PreprocessSpec, canonical_json(GrownSpec(size_px=20)), "it") == PreprocessSpec(
        size_px=20
    )


def test_an_unknown_field_that_changes_nothing_is_ignored_with_a_warning(
    caplog: pytest.LogCaptureFixture,
) -> None:
    log_once.cache_clear()
    whole, digest = GrownSpec(size_px=20).model_dump_json(), PreprocessSpec(size_px=20).digest
    with caplog.at_level(logging.WARNING):
        read = [read_config(PreprocessSpec, whole, "model 3", digest=digest) for _ in range(2)]
    assert read == [PreprocessSpec(size_px=20)] * 2
    assert [record.getMessage() for record in caplog.records] == [
        "model 3 was written by a newer radloop: read without sharpen, soft, which changes nothing here"
    ]


@pytest.mark.parametrize(
    ("config", "field"),
    [(GrownSpec(sharpen=1), "sharpen"), (GrownSpec(window=GrownWindow(center=1, width=2, soft=1)), "soft")],
)
@pytest.mark.parametrize(
    ("needs", "remedy"),
    [("0.9.0", "install radloop 0.9.0 or newer"), ("", "install the release of radloop that")],
)
def test_an_unknown_field_that_matters_is_refused(
    config: GrownSpec, field: str, needs: str, remedy: str
) -> None:
    with pytest.raises(UserFault, match=rf"model 3 (has {field}, which|needs release).*{remedy}"):
        read_config(PreprocessSpec, canonical(config), "model 3", digest=config.digest, needs=needs)


def test_an_unknown_choice_is_refused_with_the_remedy() -> None:
    with pytest.raises(UserFault, match=r"it has kind, which this release does not know; .*install"):
        read_config(PreprocessSpec, {"kind": "patch"}, "it")


def test_a_value_that_no_release_takes_is_no_matter_of_releases() -> None:
    with pytest.raises(ValidationError):
        read_config(PreprocessSpec, {"size_px": -1}, "it")


@pytest.mark.parametrize("needs", ["", "0.0.9", RELEASE])
def test_what_needs_no_newer_release_is_read(needs: str) -> None:
    check_release("it", needs)


@pytest.mark.parametrize("needs", ["0.2.1", "0.10.0", "1.0.0"])
def test_what_needs_a_newer_release_is_refused(needs: str) -> None:
    with pytest.raises(
        UserFault, match=f"it needs release {needs}; this is radloop {RELEASE}: install radloop {needs}"
    ):
        check_release("it", needs)
