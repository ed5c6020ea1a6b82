"""Commands that run a flow, and `plan` and `segment`."""

from pathlib import Path
from typing import Annotated, Literal

import typer

from cli.commands.shared_options import AsJson, Config, Labels
from cli.dispatch import carry_out

# Each parameter of a command is called as the request calls it: see `cli.options.as_request`.
Source = Annotated[
    str, typer.Option(help="Folder, archive, s3://..., dicomweb+https://... or .npz with images.")
]
LabelColumn = Annotated[str | None, typer.Option(help="Name of the label column, where it is not 'label'.")]
LabelSeparator = Annotated[
    str | None, typer.Option(help="Between several labels of one image, as ';' in 'a;b'.")
]
Findings = Annotated[
    str | None,
    typer.Option(
        metavar="A,B,...",
        help="Columns of the label table about one finding each (1, 0, -1 uncertain); several may be present.",
    ),
]
MoreLabels = Annotated[
    list[str] | None,
    typer.Option(help="Another table of findings; may be repeated.", show_default=False),
]
Objective = Annotated[
    str | None,
    typer.Option(
        help="Kind of task: classification, multilabel or segmentation. [default: that of the labels]"
    ),
]
Masks = Annotated[
    str | None,
    typer.Option(
        help="Folder or file of masks (DICOM SEG, RTSTRUCT, NIfTI, PNG), or a CSV with a column 'mask' and one of "
        "SOPInstanceUID, SeriesInstanceUID and file; in place of --labels."
    ),
]
MaskClasses = Annotated[
    str | None,
    typer.Option(
        metavar="A,B,...", help="Names of the classes 1, 2, ... of the masks; NAME=VALUE for others."
    ),
]
Missing = Annotated[
    list[str] | None,
    typer.Option(
        help="Label that stands for none; may be repeated, and replaces the list. [default: NA, nan, null, ., - ...]",
        show_default=False,
    ),
]
Positive = Annotated[str | None, typer.Option(help="Of two labels, the one that is looked for.")]
Modality = Annotated[str | None, typer.Option(help="Modality that is taken in, as MR. [default: CT]")]
Window = Annotated[
    str | None,
    typer.Option(
        help="CENTER/WIDTH, 'file' for each file's own, or 'auto': percentiles where a file has none. "
        "[default: 40/400 for CT, auto for others]"
    ),
]
Variants = Annotated[
    Literal["report", "join"] | None,
    typer.Option(help="Whether 00123 and 123 are two patients, reported, or one. [default: report]"),
]
Name = Annotated[
    str | None, typer.Option("--name", help="Name of the dataset and of the model. [default: radloop]")
]
Network = Annotated[
    str | None, typer.Option(help="Name of the network, as resnet18; docs/configuration.md has their table.")
]
Epochs = Annotated[int | None, typer.Option(help="Passes over the training images.")]
Workers = Annotated[int | None, typer.Option(help="Processes that train together.")]
Version = Annotated[int | None, typer.Option(help="Model version to compare. [default: the challenger]")]
Again = Annotated[bool | None, typer.Option("--again", help="Train even where nothing has changed.")]


def register(app: typer.Typer) -> None:
    """Add the commands to the command line."""
    for command in (run, ingest, plan, train, tune, evaluate, reevaluate, features, segment):
        app.command()(command)


def run(
    source: Source = "",
    labels: Labels = None,
    dataset: Name = None,
    config: Config = None,
    label_column: LabelColumn = None,
    label_separator: LabelSeparator = None,
    findings: Findings = None,
    more_labels: MoreLabels = None,
    masks: Masks = None,
    mask_classes: MaskClasses = None,
    missing: Missing = None,
    positive: Positive = None,
    patient_variants: Variants = None,
    modality: Modality = None,
    window: Window = None,
    objective: Objective = None,
    network: Network = None,
    epochs: Epochs = None,
    workers: Workers = None,
    again: Again = None,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Print what would be read, trained and compared; write nothing.")
    ] = False,
    as_json: AsJson = False,
) -> None:
    """Take in what is new, train, and promote what proves itself."""
    carry_out("night:run", **locals())


def ingest(
    source: Source = "",
    labels: Labels = None,
    dataset: Name = None,
    config: Config = None,
    label_column: LabelColumn = None,
    label_separator: LabelSeparator = None,
    findings: Findings = None,
    more_labels: MoreLabels = None,
    masks: Masks = None,
    mask_classes: MaskClasses = None,
    missing: Missing = None,
    positive: Positive = None,
    patient_variants: Variants = None,
    modality: Modality = None,
    window: Window = None,
    as_json: AsJson = False,
) -> None:
    """Take in what is new in a source."""
    carry_out("flow_run:run_command", flow="ingest", **locals())


def plan(
    dataset: Name = None,
    config: Config = None,
    network: Network = None,
    epochs: Epochs = None,
    workers: Workers = None,
    again: Again = None,
    as_json: AsJson = False,
) -> None:
    """Print what a training needs and how long it takes."""
    carry_out("plan:plan", **locals())


def train(
    dataset: Name = None,
    config: Config = None,
    objective: Objective = None,
    network: Network = None,
    epochs: Epochs = None,
    workers: Workers = None,
    again: Again = None,
    as_json: AsJson = False,
) -> None:
    """Train a candidate on the newest version of a dataset."""
    carry_out("flow_run:run_command", flow="train", **locals())


def tune(
    dataset: Name = None,
    config: Config = None,
    trials: Annotated[int | None, typer.Option(help="Trainings that are begun. [default: 8]")] = None,
    network: Network = None,
    epochs: Epochs = None,
    workers: Workers = None,
    as_json: AsJson = False,
) -> None:
    """Try trainings, and promote the best one if it proves itself."""
    carry_out("flow_run:run_command", flow="tune", **locals())


def evaluate(
    dataset: Name = None, version: Version = None, config: Config = None, as_json: AsJson = False
) -> None:
    """Compare candidate and champion; nothing is promoted."""
    carry_out("flow_run:run_command", flow="evaluate", **locals())


def reevaluate(
    source: Source = "",
    labels: Labels = None,
    masks: Masks = None,
    mask_classes: MaskClasses = None,
    dataset: Name = None,
    config: Config = None,
    as_json: AsJson = False,
) -> None:
    """Measure the champion on the newest labelled data."""
    carry_out("flow_run:run_command", flow="reevaluate", **locals())


def features(
    dataset: Name = None,
    version: Annotated[
        int | None, typer.Option(help="Model version that embeds. [default: champion]")
    ] = None,
    config: Config = None,
    as_json: AsJson = False,
) -> None:
    """Write the embedding of every example as Parquet."""
    carry_out("flow_run:run_command", flow="features", **locals())


def segment(
    source: Annotated[
        Path, typer.Argument(metavar="DIR", help="Folder with the images of one or more series.")
    ],
    target: Annotated[Path, typer.Argument(metavar="OUT", help="New folder, for you alone.")],
    dataset: Name = None,
    kind: Annotated[Literal["binary", "labelmap"], typer.Option(help="Type of the DICOM SEG.")] = "binary",
    as_json: AsJson = False,
) -> None:
    """Draw the images of a folder with the champion.

    Each series becomes a DICOM SEG with the identity of its images; a NIfTI file becomes one too, all else PNG files.
    """
    carry_out("segment:segment", **locals())
