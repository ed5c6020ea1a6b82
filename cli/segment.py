"""Body of `radloop segment`: the champion's masks of a folder of images, written beside it."""

from collections import Counter
from collections.abc import Iterator
from datetime import datetime
from pathlib import Path
from typing import Literal

from cli.terminal import note, print_result
from imaging.errors import DataFault, UserFault
from models.portable.predictor import Predictor
from models.portable.series_masks import WriteMasks, WrittenMask
from services.mlflow.registry import by_alias, model_file
from services.settings import activate


def segment(
    source: Path, target: Path, dataset: str | None, kind: Literal["binary", "labelmap"], as_json: bool
) -> None:
    """Write the masks of all series of a folder; print which files were written, and why others were not."""
    name = dataset or "radloop"
    if not source.is_dir():
        raise UserFault(f"no folder at {source}: give a folder with the images of one or more series")
    if target.exists() and any(target.iterdir()):
        raise UserFault(f"{target} is not empty: give a new folder")
    settings = activate()
    champion = by_alias(settings, name, "champion") if settings.has_registry else None
    if champion is None:
        raise UserFault(f"model {name!r} has no champion yet: `radloop run --masks` trains one")
    writer = WriteMasks(
        predictor=Predictor.load(model_file(settings, champion)),
        model=name,
        version=str(champion.version),
        created=datetime.now(),
        kind="BINARY" if kind == "binary" else "LABELMAP",
    )
    note(f"Version {champion.version} of {name} draws the images of {source}")
    outcomes = list(writer.write(source, target))
    written = [one for one in outcomes if isinstance(one, WrittenMask)]
    faults = [one for one in outcomes if isinstance(one, DataFault)]
    content = {
        "written": [str(one.path) for one in written],
        "no_segmentation": sorted({one.why for one in written if one.why}),
        "refused": dict(Counter(one.reason for one in faults)),
    }
    print_result(content, "\n".join(_lines(written, faults)), as_json)


def _lines(written: list[WrittenMask], faults: list[DataFault]) -> Iterator[str]:
    yield from (str(one.path) for one in written)
    yield from (f"no DICOM SEG: {why}" for why in sorted({one.why for one in written if one.why}))
    for reason, count in Counter(one.reason for one in faults).items():
        yield f"{count} not read: {reason}"
