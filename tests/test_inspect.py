"""Command `radloop inspect`: it counts what a source holds, quickly, and names no patient."""

import json
import stat
from collections import Counter
from pathlib import Path
from typing import Any

import nibabel
import numpy as np
import pytest
from PIL import Image
from typer.testing import CliRunner

from cli.main import app
from cli.options import ask
from imaging.formats.peek import HeaderPeek
from imaging.preprocess.spec import PreprocessSpec
from imaging.source_overview import Overview, OverviewCounter, proposed_configuration
from imaging.sources.protocol import SourceFile
from services.flow_requests import NightlyRequest
from tests.synthetic import write_dicom

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def archive(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Write two patients: a whole series of five and one with a gap; a text, a cut file, an object without pixels."""
    folder = tmp_path_factory.mktemp("archive") / "JANE-DOE"
    for patient, places in (("JANE DOE", range(5)), ("JOHN ROE", (0, 1, 2, 5, 6))):
        for place in places:
            write_dicom(
                folder / f"{patient}-{place}",
                np.zeros((32, 48)),
                PatientID=patient,
                StudyInstanceUID=f"1.2.{len(patient)}{places[-1]}",
                SeriesInstanceUID=f"1.3.{places[-1]}",
                SOPInstanceUID=f"1.4.{places[-1]}.{place}",
                ImagePositionPatient=[0, 0, 5 * place],
                ImageOrientationPatient=[1, 0, 0, 0, 1, 0],
                PixelSpacing=[1, 1],
                Manufacturer="ACME",
            )
    (folder / "letter.txt").write_text("Dear JANE DOE")
    (folder / "cut").write_bytes((folder / "JANE DOE-0").read_bytes()[:-50])
    write_dicom(folder / "report", Modality="SR", PixelData=None, PatientID="JANE DOE", SOPInstanceUID="1.5")
    return folder


@pytest.fixture(scope="module")
def counts(archive: Path) -> dict[str, Any]:
    result = CliRunner().invoke(app, ["inspect", str(archive), "--json"])
    assert result.exit_code == 0, result.output
    counts: dict[str, Any] = json.loads(result.stdout)
    return counts


@pytest.mark.parametrize(
    ("name", "count"),
    [("files", 13), ("patients", 2), ("studies", 3), ("series", 2), ("frames", 10), ("volumes", 2)],
)
def test_it_counts(counts: dict[str, Any], name: str, count: int) -> None:
    assert counts[name] == count


def test_it_counts_modalities(counts: dict[str, Any]) -> None:
    assert counts["modalities"] == {"CT": 10, "SR": 1}


def test_it_counts_transfer_syntaxes(counts: dict[str, Any]) -> None:
    assert counts["syntaxes"] == {"Explicit VR Little Endian": 10}


def test_it_counts_sizes(counts: dict[str, Any]) -> None:
    assert counts["sizes"] == {"48 x 32": 10}


def test_it_counts_problems(counts: dict[str, Any]) -> None:
    assert counts["problems"] == {"not-dicom": 1, "truncated": 1, "no-pixels": 1}


def test_it_finds_the_gap(counts: dict[str, Any]) -> None:
    assert counts["findings"] == {"gap": 1}


def test_a_person_reads_the_same(archive: Path) -> None:
    shown = CliRunner().invoke(app, ["inspect", str(archive)]).output
    assert "13 files" in shown
    for text in (
        "2 patients",
        "3 studies",
        "Transfer syntaxes",
        "truncated",
        "the file ends before its data does",
    ):
        assert text in shown


def test_variants_of_an_identifier_are_reported(tmp_path: Path) -> None:
    for number, patient in enumerate(("00123", "123", "124")):
        write_dicom(
            tmp_path / str(number), np.zeros((8, 8)), PatientID=patient, SOPInstanceUID=f"1.4.{number}"
        )
    result = CliRunner().invoke(app, ["inspect", str(tmp_path)])
    assert "2 patients are written in ways that may mean one patient" in result.output


def test_it_names_no_patient_and_no_file(archive: Path) -> None:
    shown = CliRunner().invoke(app, ["inspect", str(archive)]).output
    assert not [word for word in ("JANE", "JOHN", "letter", "report") if word in shown]


def test_the_names_of_bad_files_are_written_where_they_are_asked_for(archive: Path, tmp_path: Path) -> None:
    CliRunner().invoke(app, ["inspect", str(archive), "--problems", str(tmp_path / "bad.csv")])
    lines = (tmp_path / "bad.csv").read_text().splitlines()
    assert sorted(lines) == ["cut,truncated", "file,reason", "letter.txt,not-dicom"]


def test_that_list_is_for_its_owner_alone(archive: Path, tmp_path: Path) -> None:
    CliRunner().invoke(app, ["inspect", str(archive), "--problems", str(tmp_path / "bad.csv")])
    assert stat.S_IMODE((tmp_path / "bad.csv").stat().st_mode) == 0o600


def test_findings_about_pixel_data_are_counted_by_file() -> None:
    counter = OverviewCounter()
    for findings in (("padded-pixels",), (), ("padded-pixels", "surplus-groups")):
        peek = HeaderPeek(
            format="dicom",
            attributes={"SOPInstanceUID": "1", "PatientID": "1", "SeriesInstanceUID": "1"},
            has_pixels=True,
            findings=findings,
        )
        counter.add(SourceFile(name="x", size_bytes=1, mtime_ns=0), peek)
    problems = counter.result().problems
    assert (problems["padded-pixels"], problems["surplus-groups"]) == (2, 1)


def test_a_retired_transfer_syntax_is_counted_by_its_name() -> None:
    counter = OverviewCounter()
    for syntax in ("1.2.840.10008.1.2.4.55", "1.2.840.10008.1.2.8.1", "DOE^JANE"):
        peek = HeaderPeek(format="dicom", syntax=syntax, has_pixels=True)
        counter.add(SourceFile(name="x", size_bytes=1, mtime_ns=0), peek)
    assert counter.result().syntaxes == {
        "JPEG Full Progression, Non-Hierarchical (Process 10 and 12)": 1,
        "Deflated Image Frame Compression": 1,
        "(none)": 1,
    }


def test_a_value_that_slipped_into_a_code_is_not_shown() -> None:
    counter = OverviewCounter()
    header = {"Modality": "Doe^Jane", "SOPInstanceUID": "1.2", "PatientID": "x", "SeriesInstanceUID": "1.3"}
    counter.add(SourceFile(name="a", size_bytes=1, mtime_ns=1), HeaderPeek(format="dicom", attributes=header))
    assert counter.result().modalities == {"(none)": 1}


def test_the_same_object_twice_is_a_problem() -> None:
    counter = OverviewCounter()
    header = {"SOPInstanceUID": "1.2", "PatientID": "x", "SeriesInstanceUID": "1.3"}
    for name in "ab":
        peek = HeaderPeek(format="dicom", attributes=header, has_pixels=True)
        counter.add(SourceFile(name=name, size_bytes=1, mtime_ns=1), peek)
    assert counter.result().problems == {"repeated-instance": 1}


def test_a_missing_source_is_a_fault_of_the_user(tmp_path: Path) -> None:
    from imaging.errors import UserFault

    result = CliRunner().invoke(app, ["inspect", str(tmp_path / "nowhere")])
    assert isinstance(result.exception, UserFault)


def test_a_configuration_is_proposed(counts: dict[str, Any]) -> None:
    assert counts["proposed_configuration"] == {"preprocess": {"modality": "CT", "window": "40/400"}}


@pytest.mark.parametrize(
    ("overview", "proposed"),
    [
        (
            Overview(modalities=Counter(SM=4), slide_levels=3),
            {"modality": "SM", "window": "auto", "slide_mpp": 0.5},
        ),
        (Overview(modalities=Counter(SM=4)), {"modality": "SM", "window": "auto"}),
        (Overview(modalities=Counter(SR=9, PT=3, CT=2)), {"modality": "PT", "window": "auto"}),
        (Overview(formats=Counter(nifti=2)), {"modality": "OT", "window": "auto"}),
        (
            Overview(formats=Counter(picture=2, dicom=1), modalities=Counter(US=1)),
            {"modality": "US", "window": "auto"},
        ),
    ],
    ids=["slides", "microscopy", "most frequent", "nifti", "stated"],
)
def test_the_most_frequent_modality_with_pixels_is_proposed(
    overview: Overview, proposed: dict[str, str]
) -> None:
    assert proposed_configuration(overview) == {"preprocess": proposed}


@pytest.mark.parametrize("overview", [Overview(), Overview(modalities=Counter({"SR": 4, "(none)": 1}))])
def test_nothing_is_proposed_for_a_source_without_images(overview: Overview) -> None:
    assert proposed_configuration(overview) == {}


def test_a_proposed_configuration_can_be_taken_over(archive: Path, tmp_path: Path) -> None:
    printed = CliRunner().invoke(app, ["inspect", str(archive)]).stdout
    config = tmp_path / "night.yaml"
    config.write_text(printed.partition("for --config:")[2])
    assert ask(NightlyRequest, config, {"source": "x"}).preprocess == PreprocessSpec()


@pytest.fixture
def pictures(tmp_path: Path) -> tuple[Path, Path]:
    folder, table = tmp_path / "pictures", tmp_path / "labels.csv"
    folder.mkdir()
    for n in range(4):
        Image.fromarray(np.full((30, 20), n, np.uint8)).save(folder / f"{n}.png")
    nibabel.save(nibabel.Nifti1Image(np.zeros((5, 4, 3, 2), np.int16), np.eye(4)), folder / "v.nii.gz")
    lines = [
        "file,PatientID,finding",
        "0.png,A,yes",
        "1.png,A,no",
        "2.png,B,NA",
        "3.png,B,yes",
        "v.nii.gz,C,no",
    ]
    table.write_text("\n".join(lines))
    return folder, table


def test_pictures_and_volumes_of_nifti_are_counted(pictures: tuple[Path, Path]) -> None:
    result = CliRunner().invoke(app, ["inspect", str(pictures[0]), "--labels", str(pictures[1]), "--json"])
    counts = json.loads(result.stdout)
    assert {name: counts[name] for name in ("patients", "frames", "volumes", "sizes")} == {
        "patients": 3,
        "frames": 10,
        "volumes": 2,
        "sizes": {"20 x 30": 4, "5 x 4": 1},
    }
    assert (counts["labels"]["files"], counts["labels"]["patients"]) == (4, 3)


@pytest.mark.parametrize(
    ("options", "texts"),
    [
        (
            [],
            [
                "column 'finding', by file, PatientID: 4 files of 3 patients have one",
                "files without a label: 1",
            ],
        ),
        (["--missing", "-"], ["5 files of 3 patients have one"]),
        (["--label-column", "x"], ["10 images", "no 'x': give --label-column one of them"]),
    ],
)
def test_a_label_table_is_shown_beside_the_images(
    pictures: tuple[Path, Path], options: list[str], texts: list[str]
) -> None:
    shown = (
        CliRunner().invoke(app, ["inspect", str(pictures[0]), "--labels", str(pictures[1]), *options]).output
    )
    assert [text for text in texts if text not in shown] == []
