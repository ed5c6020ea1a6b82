"""Requests: the parameters of the flows, as a person gives them in forms, configuration files and options."""

from collections.abc import Mapping
from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING, Annotated, Any, ClassVar, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, GetJsonSchemaHandler, field_validator, model_validator
from pydantic.json_schema import JsonSchemaValue
from pydantic_core import CoreSchema

from imaging.dataset.split.shares import SplitConfig
from imaging.deidentify.options import DeidentifyOptions
from imaging.preprocess.spec import MODALITIES, PreprocessSpec, nearest_modalities
from imaging.pseudonyms import VariantPolicy
from imaging.sources.label_file import MISSING
from imaging.statistics.predictions import deciding
from imaging.statistics.verdict import GateConfig
from models.config import TrainConfig
from models.networks.catalog import names_of
from models.objectives.multilabel import Multilabel
from models.objectives.objective_catalog import OBJECTIVES
from models.objectives.segmentation import Segmentation
from models.search_space import SearchConfig
from services.form_schema import AUTOMATIC, shape_for_form

if TYPE_CHECKING:
    # Loading it loads MLflow, which takes seconds that a refused request should not cost.
    pass

NAME = r"^[a-z0-9](?:[_-]?[a-z0-9]){0,62}$"
"""Letters and digits with single hyphens or underscores between them; two hyphens mark a shadow."""

DatasetName = Annotated[
    str, Field(pattern=NAME, title="Name", description="Name of the dataset and of the model.")
]
Again = Annotated[bool, Field(title="Train again", description="Train even where nothing has changed.")]


class Request(BaseModel):
    """Base of all requests: they are frozen, and an unknown field is an error."""

    model_config = ConfigDict(frozen=True, extra="forbid")
    required_in_form: ClassVar[tuple[str, ...]] = ()
    """Fields with a default of "" that a person must fill in; what a command lacks of them, its own check names."""

    @classmethod
    def __get_pydantic_json_schema__(
        cls, core_schema: CoreSchema, handler: GetJsonSchemaHandler
    ) -> JsonSchemaValue:
        schema = handler(core_schema)
        shape_for_form(schema, cls.required_in_form, handler.resolve_ref_schema)
        return schema


class IngestRequest(Request):
    """Take in what is new in a source."""

    required_in_form: ClassVar[tuple[str, ...]] = ("source",)

    source: str = Field(
        "",
        title="Source",
        description="Folder, .zip or .tar of DICOM, NIfTI or picture files, s3://BUCKET/PREFIX, "
        "dicomweb+https://HOST/PATH, or an NPZ file in MedMNIST's layout.",
    )
    labels: str | None = Field(
        None,
        title="Label table",
        description="CSV with a column SOPInstanceUID, SeriesInstanceUID, StudyInstanceUID, PatientID or file, "
        "and one with the label; of several the finest decides. Pictures and NIfTI need file and PatientID; an NPZ "
        "file needs no table.",
    )
    label_column: str | None = Field(
        None, title="Label column", description="Name of the label column, where it is not 'label'."
    )
    label_separator: str | None = Field(
        None,
        min_length=1,
        title="Label separator",
        description="What is between the labels of one image, as in 'a;b': each is a finding, and an image may have "
        "several. What a list does not name is absent.",
    )
    findings: tuple[str, ...] = Field(
        (),
        title="Findings",
        description="Columns of the label table, each about one finding: 1 is present, 0 absent, -1 uncertain, empty "
        "unknown. With a label separator, those of its labels that are learned; default: all.",
    )
    more_labels: tuple[str, ...] = Field(
        (), title="More label tables", description="Further tables of findings; each adds what it knows."
    )
    missing: tuple[str, ...] = Field(
        MISSING,
        title="Missing labels",
        description="Labels that stand for none, whatever their case; an empty one always does.",
    )
    positive: str | None = Field(
        None, title="Label that is looked for", description="Of two labels, the one that is looked for."
    )
    masks: str | None = Field(
        None,
        title="Masks",
        description="CSV with a column 'mask', the file of each mask (DICOM SEG, RTSTRUCT, NIfTI or PNG) relative to "
        "the table, and SOPInstanceUID, SeriesInstanceUID or file; or a folder or file of masks. In place of labels.",
    )
    mask_classes: tuple[str, ...] = Field(
        (),
        title="Mask classes",
        description="Names of the classes 1, 2 and so on of the masks, as segments and regions are called; NAME=VALUE "
        "where NIfTI and PNG masks have another value.",
    )
    dataset: DatasetName = "radloop"
    preprocess: PreprocessSpec | None = Field(
        None,
        title="Preprocessing",
        description="Default: CT at center 40, width 400, 64 pixels; grey levels as they are for pictures and NPZ.",
    )
    bad_slice: Literal["drop-slice", "drop-study"] | None = Field(
        None,
        title="Bad slice",
        description="What a bad slice costs: itself or its study. Default: for volumes the study, else itself.",
    )
    patient_variants: VariantPolicy = Field(
        "report",
        title="Variants of a PatientID",
        description="What '00123', '123' and '123 ' of one archive are: patients of their own that are reported as "
        "perhaps one, or joined to one. It holds for the life of a dataset.",
    )
    splits: SplitConfig = Field(SplitConfig(), title="Splits", description="Shares of patients.")

    @field_validator("findings", "mask_classes", mode="before")
    @classmethod
    def _names_by_commas(cls, given: Any) -> Any:
        """Read `findings: a, b` of a YAML file or an option as what it means."""
        return tuple(name.strip() for name in given.split(",")) if isinstance(given, str) else given

    @field_validator("missing", "more_labels", mode="before")
    @classmethod
    def _one_is_a_list_of_one(cls, given: Any) -> Any:
        """Read `missing: NA` of a YAML file as what it means."""
        return (given,) if isinstance(given, str) else given

    @model_validator(mode="after")
    def _labels_or_findings(self) -> Self:
        blank = [name for name in self.findings if not name.strip()]
        repeated = {name for name in self.findings if self.findings.count(name) > 1}
        if blank or repeated:
            which = f"{sorted(repeated)[0]!r} twice" if repeated else "an empty name"
            raise ValueError(f"findings has {which}: name each finding once")
        if self.findings and self.label_column is not None and self.label_separator is None:
            raise ValueError(
                f"both label_column {self.label_column!r} and findings are given, and either can be learned: leave out "
                "label_column to learn the findings, or findings to learn one label; where the column lists findings, "
                "give label_separator too"
            )
        if self.has_findings and self.positive is not None:
            raise ValueError(
                f"positive {self.positive!r} is for two classes, and findings are asked for: leave it out"
            )
        if self.more_labels and not (self.labels and self.has_findings):
            raise ValueError(
                "more_labels adds tables of findings: give labels, and findings or label_separator"
            )
        return self

    @model_validator(mode="after")
    def _masks_or_labels(self) -> Self:
        if self.masks and (self.labels or self.has_findings):
            raise ValueError(
                "both masks and labels are given, and a dataset has one of them: leave one out, and take the other "
                "into a dataset with another name; the mask table may have PatientID beside file"
            )
        if bool(self.masks) != bool(self.mask_classes):
            raise ValueError(
                "masks and mask_classes go together: --masks MASKS.csv --mask-classes 'blood pool,myocardium' names "
                "the classes 1 and 2"
            )
        return self

    @property
    def has_findings(self) -> bool:
        """Whether an image may have several findings, instead of one label."""
        return bool(self.findings or self.label_separator)

    @field_validator("preprocess", mode="before")
    @classmethod
    def _automatic_is_none(cls, given: Any) -> Any:
        """Read what the form sends for a part that is left out."""
        return None if given == AUTOMATIC else given

    @field_validator("preprocess")
    @classmethod
    def _modality_is_known(cls, preprocess: PreprocessSpec | None) -> PreprocessSpec | None:
        if preprocess is not None and preprocess.modality not in MODALITIES:
            near = nearest_modalities(preprocess.modality)
            first = f"give {' or '.join(near)}, or another of" if near else "give one of"
            raise ValueError(f"modality is {preprocess.modality!r}: {first} {', '.join(MODALITIES)}")
        return preprocess


class TrainRequest(Request):
    """Train a candidate on the newest version of a dataset."""

    dataset: DatasetName = "radloop"
    training: TrainConfig = Field(TrainConfig(), title="Training")
    again: Again = False


class TuneRequest(Request):
    """Try trainings on the newest version of a dataset, and promote the best one if it proves itself."""

    dataset: DatasetName = "radloop"
    training: TrainConfig = Field(TrainConfig(), title="Training")
    search: SearchConfig = Field(SearchConfig(), title="Search")
    gate: GateConfig = Field(GateConfig(), title="Gate")


class EvaluateRequest(Request):
    """Compare a candidate with the champion on the locked test patients."""

    version: int | None = Field(
        None,
        ge=1,
        title="Model version",
        description="The candidate; default: the challenger, or the newest.",
    )
    dataset: DatasetName = "radloop"
    gate: GateConfig = Field(GateConfig(), title="Gate")


class FeaturesRequest(Request):
    """Write the embedding of every example of the newest version of a dataset."""

    version: int | None = Field(
        None, ge=1, title="Model version", description="The model that embeds; default: the champion."
    )
    dataset: DatasetName = "radloop"


class NightlyRequest(IngestRequest):
    """Take in what is new, train, and promote the model if it proves itself."""

    training: TrainConfig = Field(TrainConfig(), title="Training")
    again: Again = False
    gate: GateConfig = Field(GateConfig(), title="Gate")

    @model_validator(mode="before")
    @classmethod
    def _objective_of_the_labels(cls, given: Any) -> Any:
        """Fill in the objective of findings or masks where none was chosen."""
        if not isinstance(given, dict):
            return given
        objective = Segmentation.name if given.get("masks") else Multilabel.name
        if not (given.get("masks") or given.get("findings") or given.get("label_separator")):
            return given
        training, preprocess = given.get("training", {}), given.get("preprocess")
        filled = {"objective": objective}
        if isinstance(preprocess, dict) and preprocess.get("kind") == "volume" and given.get("masks"):
            filled["network"] = names_of(Segmentation.network_output, "volume")[0]
        return given | {"training": filled | training} if isinstance(training, dict) else given

    @model_validator(mode="after")
    def _objective_learns_the_labels(self) -> Self:
        if self.has_findings and self.training.objective != Multilabel.name:
            raise ValueError(
                f"findings are learned by objective {Multilabel.name!r}, and {self.training.objective!r} was chosen: "
                f"choose {Multilabel.name!r}, or leave out findings and label_separator"
            )
        if self.training.objective == Multilabel.name and not self.has_findings:
            raise ValueError(
                f"objective {Multilabel.name!r} learns findings: give findings or label_separator"
            )
        if bool(self.masks) != (self.training.objective == Segmentation.name):
            raise ValueError(
                f"objective {Segmentation.name!r} alone learns masks, and {self.training.objective!r} was chosen with "
                f"{'masks' if self.masks else 'no masks'}: give both or neither"
            )
        return self

    @model_validator(mode="after")
    def _gate_decides_on_the_objective(self) -> Self:
        known = deciding(OBJECTIVES[self.training.objective].measures)
        # Which parts a measure has, such as findings, the dataset says.
        if self.gate.measure is not None and self.gate.measure.partition("[")[0] not in known:
            raise ValueError(
                f"the gate cannot decide on {self.gate.measure!r}: choose one of {', '.join(known)}"
            )
        part = (self.gate.measure or "").removesuffix("]").partition("[")[2]
        if part and self.findings and part not in self.findings:
            raise ValueError(
                f"the gate cannot decide on {self.gate.measure!r}: choose one of the findings "
                f"{', '.join(self.findings)}"
            )
        return self


class ReevaluateRequest(IngestRequest):
    """Measure the champion on the newest labelled data."""

    # Without a source nothing is taken in before.
    required_in_form: ClassVar[tuple[str, ...]] = ()

    gate: GateConfig = Field(
        GateConfig(), title="Gate", description="The floor below which a warning is raised."
    )


class DeidentifyRequest(Request):
    """Write the DICOM objects of a source, de-identified, into a folder."""

    source: str = Field(
        title="Source",
        pattern=r"^[/~]|://",
        description="Whole path of a folder, .zip or .tar of DICOM files, as in /archive/ct; "
        "or s3://BUCKET/PREFIX or dicomweb+https://HOST/PATH.",
    )
    # A worker of Prefect runs in a folder that is removed after the run, and what a part of a path leads to with it.
    destination: str = Field(
        title="Destination",
        pattern=r"^[/~]",
        description="Whole path of a folder, as in /released/ct: new, or made before from this source with the same "
        "options. Hand out the folder images in it alone.",
    )
    options: DeidentifyOptions = Field(DeidentifyOptions(), title="Options of PS3.15")


REQUESTS: Mapping[str, type[Request]] = MappingProxyType(
    {
        "ingest": IngestRequest,
        "train": TrainRequest,
        "tune": TuneRequest,
        "evaluate": EvaluateRequest,
        "nightly": NightlyRequest,
        "reevaluate": ReevaluateRequest,
        "features": FeaturesRequest,
        "deidentify": DeidentifyRequest,
    }
)
"""By the name of the flow."""


def absolute_place(place: str) -> str:
    """Return a path that is right for workers too, which run in another folder; an address stays as it is.

    >>> absolute_place("s3://bucket/prefix")
    's3://bucket/prefix'
    """
    return place if "://" in place else str(Path(place).expanduser().resolve())
