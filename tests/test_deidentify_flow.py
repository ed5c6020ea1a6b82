"""De-identification of a source: new files are read, outputs of missing files go, and a kill leaves nothing half."""

import csv
import json
import os
import random
import shutil
import signal
import stat
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
from blake3 import blake3

from imaging.deidentify.folder.deidentify_outcome import DeidentifyOutcome
from imaging.deidentify.folder.destination import Destination
from imaging.deidentify.folder.file_ledger import latest
from imaging.deidentify.options import DeidentifyOptions
from imaging.errors import EnvironmentFault, UserFault
from services.flow_requests import DeidentifyRequest
from services.settings import Settings
from tasks.deidentification import bring_up_to_date
from tests import json_objects
from tests.json_objects import write_object

RUN = """
import sys
from pathlib import Path
from tasks.deidentification import bring_up_to_date
from services.flow_requests import DeidentifyRequest
from services.settings import activate

source, destination = sys.argv[1:]
request = DeidentifyRequest(source=source, destination=destination)
bring_up_to_date(request, activate(), print, "tests.json_objects:deidentify_slowly")
"""
pytestmark = pytest.mark.slow

ROUNDS, KILLS, A_ROUND = 7, 5, 36
FILES = 150


@pytest.fixture
def archive(tmp_path: Path) -> Path:
    """Return a source of four objects of three patients, and a file that is none."""
    folder = tmp_path / "archive"
    for number, patient in enumerate(("00123", "123", "P2", "P2")):
        write_object(folder, f"ward/{number}", patient, f"1.2.{number + 1}", body=str(number))
    write_object(folder, "ward/refused", instance="1.9", body="!truncated")
    (folder / "ward" / "notes.png").write_bytes(b"a picture")
    return folder


@pytest.fixture
def out(tmp_path: Path) -> Path:
    return tmp_path / "out"


def bring(
    source: Path, out: Path, settings: Settings, function: str = json_objects.FUNCTION, **options: Any
) -> DeidentifyOutcome:
    request = DeidentifyRequest(
        source=str(source), destination=str(out), options=DeidentifyOptions(**options)
    )
    return bring_up_to_date(request, settings, lambda line: None, function)


def images(out: Path) -> dict[str, str]:
    """Return name and digest of each file that is visible."""
    files = sorted((out / "images").rglob("*.*"))
    return {
        str(path.relative_to(out)): blake3(path.read_bytes()).hexdigest() for path in files if path.is_file()
    }


def rows(out: Path) -> list[dict[str, Any]]:
    entries: list[dict[str, Any]] = latest(Destination(out).ledger.read()).to_pylist()
    return entries


def times(out: Path) -> dict[Path, int]:
    return {
        path: path.stat().st_mtime_ns for path in out.rglob("*") if path.is_file() and path.name != "lock"
    }


def test_every_object_has_an_output_under_its_new_names(archive: Path, out: Path, settings: Settings) -> None:
    bring(archive, out, settings)
    outputs = images(out)
    assert len(outputs) == 4
    assert all(
        json.loads((out / name).read_bytes()[: (out / name).stat().st_size // 2000])["instance"] in name
        for name in outputs
    )


def test_the_ledger_names_each_output_and_its_digest(archive: Path, out: Path, settings: Settings) -> None:
    bring(archive, out, settings)
    assert {row["output"]: row["blake3"] for row in rows(out) if row["output"]} == images(out)


def test_what_was_refused_is_in_the_ledger_with_its_reason(
    archive: Path, out: Path, settings: Settings
) -> None:
    bring(archive, out, settings)
    assert sorted(row["reason"] for row in rows(out) if not row["output"]) == ["not-dicom", "truncated"]


def test_the_outcome_counts(archive: Path, out: Path, settings: Settings) -> None:
    outcome = bring(archive, out, settings)
    assert (outcome.files_listed, outcome.files_read, outcome.objects, outcome.patients) == (6, 6, 4, 3)
    assert (outcome.quarantined, outcome.ignored) == ({"truncated": 1}, {"not-dicom": 1})


def test_patients_whose_numbers_are_spelled_alike_are_counted(
    archive: Path, out: Path, settings: Settings
) -> None:
    assert bring(archive, out, settings).patient_variants == 2


def test_original_names_of_problems_are_for_their_owner_alone(
    archive: Path, out: Path, settings: Settings
) -> None:
    path = Path(bring(archive, out, settings).problems_file or "")
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert {row[1] for row in list(csv.reader(path.open()))[1:]} == {"ward/notes.png", "ward/refused"}


def test_no_name_of_a_file_is_in_the_destination(archive: Path, out: Path, settings: Settings) -> None:
    bring(archive, out, settings)
    left = b"".join(path.read_bytes() for path in (out / ".radloop").rglob("*") if path.is_file())
    assert b"ward" not in left


def test_progress_has_a_rate_and_an_end(archive: Path, out: Path, settings: Settings) -> None:
    lines: list[str] = []
    bring_up_to_date(
        DeidentifyRequest(source=str(archive), destination=str(out)),
        settings,
        lines.append,
        json_objects.FUNCTION,
    )
    assert lines[0] == "6 files listed, 6 to read"
    assert lines[-1].startswith("6/6 files, ")
    assert lines[-1].endswith(" files/s, 0 s left")


def test_the_same_run_twice_reads_and_writes_nothing(archive: Path, out: Path, settings: Settings) -> None:
    bring(archive, out, settings)
    before = times(out)
    assert bring(archive, out, settings).files_read == 0
    assert times(out) == before


def test_a_new_file_alone_is_read(archive: Path, out: Path, settings: Settings) -> None:
    bring(archive, out, settings)
    write_object(archive, "ward/9", "P9", "1.2.9")
    outcome = bring(archive, out, settings)
    assert (outcome.files_read, outcome.objects) == (1, 5)


def test_a_changed_file_replaces_its_output(archive: Path, out: Path, settings: Settings) -> None:
    bring(archive, out, settings)
    before = images(out)
    write_object(archive, "ward/0", "00123", "1.2.1", body="changed for good")
    assert bring(archive, out, settings).files_read == 1
    assert images(out).keys() == before.keys()
    assert len(images(out).items() - before.items()) == 1


def test_a_file_that_became_another_object_loses_its_old_output(
    archive: Path, out: Path, settings: Settings
) -> None:
    bring(archive, out, settings)
    before = images(out)
    write_object(archive, "ward/0", "00123", "1.2.77")
    bring(archive, out, settings)
    assert (len(images(out)), len(images(out).keys() & before.keys())) == (4, 3)


def test_the_output_of_a_removed_file_is_removed_and_counted(
    archive: Path, out: Path, settings: Settings
) -> None:
    bring(archive, out, settings)
    (archive / "ward" / "0").unlink()
    outcome = bring(archive, out, settings)
    assert (outcome.files_removed, outcome.objects, len(images(out))) == (1, 3, 3)


def test_a_removed_file_is_counted_once(archive: Path, out: Path, settings: Settings) -> None:
    bring(archive, out, settings)
    (archive / "ward" / "0").unlink()
    bring(archive, out, settings)
    assert bring(archive, out, settings).files_removed == 0


def test_of_two_objects_with_one_instance_the_first_of_the_source_stands(
    tmp_path: Path, out: Path, settings: Settings
) -> None:
    for name in ("b", "a", "c"):
        write_object(tmp_path / "archive", name, body=name)
    outcome = bring(tmp_path / "archive", out, settings)
    assert (outcome.objects, outcome.quarantined) == (1, {"conflict": 2})
    (only,) = images(out)
    assert json.loads((out / only).read_bytes()[: (out / only).stat().st_size // 2000])["body"] == "a"


def test_the_same_object_under_two_names_is_one_output(tmp_path: Path, out: Path, settings: Settings) -> None:
    for name in ("a", "b"):
        write_object(tmp_path / "archive", name)
    outcome = bring(tmp_path / "archive", out, settings)
    assert (outcome.objects, outcome.quarantined, len(images(out))) == (1, {}, 1)


def test_a_conflict_is_decided_anew_when_what_stood_is_gone(
    tmp_path: Path, out: Path, settings: Settings
) -> None:
    for name in ("a", "b"):
        write_object(tmp_path / "archive", name, body=name)
    bring(tmp_path / "archive", out, settings)
    (tmp_path / "archive" / "a").unlink()
    outcome = bring(tmp_path / "archive", out, settings)
    assert (outcome.objects, outcome.quarantined) == (1, {})


def test_other_options_need_another_destination(archive: Path, out: Path, settings: Settings) -> None:
    bring(archive, out, settings)
    with pytest.raises(UserFault, match=r"made with the options \{'dates': 'shift'\}.*new destination"):
        bring(archive, out, settings, dates="remove")


def test_another_key_needs_another_destination(archive: Path, out: Path, settings: Settings) -> None:
    bring(archive, out, settings)
    (settings.private / "pseudonym.key").unlink()
    (settings.private / "pseudonym.key").touch(0o600)
    (settings.private / "pseudonym.key").write_bytes(b"x" * 32)
    with pytest.raises(UserFault, match="made with the key"):
        bring(archive, out, settings)


def test_a_lost_key_is_not_replaced_by_a_new_one(archive: Path, out: Path, settings: Settings) -> None:
    bring(archive, out, settings)
    (settings.private / "pseudonym.key").unlink()
    with pytest.raises(EnvironmentFault, match="restore it from your backup"):
        bring(archive, out, settings)
    assert not (settings.private / "pseudonym.key").exists()


def test_a_key_that_others_can_read_is_refused(archive: Path, out: Path, settings: Settings) -> None:
    bring(archive, out, settings)
    (settings.private / "pseudonym.key").chmod(0o644)
    with pytest.raises(EnvironmentFault, match="may be read by others"):
        bring(archive, out, settings)


def test_another_source_does_not_empty_the_destination(
    archive: Path, tmp_path: Path, out: Path, settings: Settings
) -> None:
    bring(archive, out, settings)
    write_object(tmp_path / "other", "x")
    with pytest.raises(UserFault, match=r"none of the 6 files.*new destination"):
        bring(tmp_path / "other", out, settings)
    assert len(images(out)) == 4


def test_an_empty_source_does_not_empty_the_destination(archive: Path, out: Path, settings: Settings) -> None:
    bring(archive, out, settings)
    shutil.rmtree(archive)
    archive.mkdir()
    with pytest.raises(UserFault, match="holds no files"):
        bring(archive, out, settings)
    assert len(images(out)) == 4


@pytest.mark.parametrize("place", ["archive", "archive/out", "."])
def test_a_destination_in_the_source_or_around_it_is_refused(
    archive: Path, tmp_path: Path, place: str, settings: Settings
) -> None:
    before = sorted(tmp_path.rglob("*"))
    with pytest.raises(UserFault, match="lie in one another"):
        bring(archive, tmp_path / place, settings)
    assert sorted(tmp_path.rglob("*")) == before


def test_a_npz_file_is_refused(tmp_path: Path, out: Path, settings: Settings) -> None:
    (tmp_path / "images.npz").write_bytes(b"PK")
    with pytest.raises(UserFault, match=r"\.npz file holds no DICOM"):
        bring(tmp_path / "images.npz", out, settings)


def test_a_broken_installation_stops_the_run_and_shows_nothing(
    archive: Path, out: Path, settings: Settings
) -> None:
    with pytest.raises(EnvironmentFault, match="model of letters is missing"):
        bring(archive, out, settings, json_objects.BROKEN)
    assert images(out) == {}
    assert list((out / ".radloop").glob("drafts-*")) == []


def test_an_answer_that_leads_out_of_the_destination_is_refused(
    archive: Path, out: Path, settings: Settings
) -> None:
    outcome = bring(archive, out, settings, json_objects.ESCAPING)
    assert (outcome.objects, images(out)) == (0, {})
    assert outcome.quarantined["unreadable"] == 4


def many(folder: Path, files: int = FILES) -> Path:
    for number in range(sum(1 for _ in folder.glob("*")), files):
        write_object(folder, f"{number:03d}", f"P{number % 7}", f"1.2.{number + 1}", body=str(number))
    return folder


def test_many_files_on_ray_become_what_few_here_become(tmp_path: Path, settings: Settings) -> None:
    archive, here, there = many(tmp_path / "archive"), tmp_path / "here", tmp_path / "there"
    bring(archive, here, settings)
    many(archive, 2 * FILES)
    bring(archive, there, settings)
    bring(archive, here, settings)
    assert len(images(there)) == 2 * FILES
    assert images(here) == images(there)


def test_a_run_that_is_killed_again_and_again_ends_as_one_that_was_not(
    tmp_path: Path, settings: Settings
) -> None:
    everything, archive = many(tmp_path / "everything", ROUNDS * A_ROUND), tmp_path / "archive"
    whole = bring(everything, tmp_path / "whole", settings)
    archive.mkdir()
    chance, out = random.Random(4), tmp_path / "out"
    command = [sys.executable, "-c", RUN, str(archive), str(out)]
    killed = 0
    for number in range(ROUNDS):
        # There is always something to do: a run that is over before its kill is one more round.
        for file in sorted(everything.iterdir())[number * A_ROUND : (number + 1) * A_ROUND]:
            (archive / file.name).hardlink_to(file)
        with subprocess.Popen(command, env=os.environ, stdout=subprocess.PIPE, text=True) as process:
            assert process.stdout is not None
            # The first line comes before the first file, each later one after a piece of the chunk.
            for _ in range(chance.randint(1, 2)):
                process.stdout.readline()
            time.sleep(chance.random() * 0.1)
            process.send_signal(signal.SIGKILL)
            process.communicate()
        killed += process.returncode == -signal.SIGKILL
        assert process.returncode in (0, -signal.SIGKILL)
        # Whatever is visible is whole, at any moment.
        assert images(out).items() <= images(tmp_path / "whole").items()
    assert killed >= KILLS
    assert bring(archive, out, settings).objects == whole.objects == ROUNDS * A_ROUND
    assert images(out) == images(tmp_path / "whole")
    assert rows(out) == rows(tmp_path / "whole")
    assert list((out / ".radloop").glob("drafts-*")) == []
