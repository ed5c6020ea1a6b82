"""De-identification as a job of a cluster: it is done there, its outcome comes back, its request goes."""

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from infra.stack.flow_runs import latest_runs
from infra.stack.servers import answer_of
from tests.conftest import Running
from tests.synthetic import write_dicom

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def archive(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("archive") / "rosengarten"
    for number in range(3):
        changes = {"SOPInstanceUID": f"1.2.826.0.1.9.{number + 1}", "BodyPartExamined": "CHEST"}
        write_dicom(folder / str(number), np.tile(np.arange(64), (64, 1)), **changes)
    return folder


def deidentify(stack: Running, *arguments: str | Path) -> subprocess.CompletedProcess[str]:
    """Run the command while the stack is up: as a process of its own, because Ray reads its token when loaded."""
    command = [sys.executable, "-m", "cli.main", "deidentify", *map(str, arguments)]
    return subprocess.run(
        command,
        env={**os.environ, "RADLOOP_HOME": str(stack.record.home), "COLUMNS": "400"},
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )


def jobs_of(stack: Running) -> list[dict[str, Any]]:
    """Return the jobs that the cluster has had; other tests have theirs."""
    jobs: list[dict[str, Any]] = answer_of(
        f"{stack.record.addresses['ray']}/api/jobs/", token=stack.record.token_file.read_text()
    )
    return jobs


def test_a_source_is_deidentified_by_a_job_of_the_cluster(
    stack: Running, archive: Path, tmp_path: Path
) -> None:
    before = {job["submission_id"] for job in jobs_of(stack)}
    done = deidentify(stack, archive, tmp_path / "out")
    assert done.returncode == 0, done.stdout + done.stderr
    assert "3/3 files" in done.stdout + done.stderr
    assert "3 objects of" in " ".join(done.stdout.split())
    assert len(list((tmp_path / "out" / "images").rglob("*.dcm"))) == 3
    ours = [job for job in jobs_of(stack) if job["submission_id"] not in before]
    assert all("tasks.cluster_jobs deidentify" in job["entrypoint"] for job in ours)
    assert [job["status"] for job in ours] == ["SUCCEEDED"]
    assert "rosengarten" not in str(ours)
    assert list((stack.record.home / "private" / "deidentify").iterdir()) == []
    # The run is on the server that is up, and not on one of the command's own.
    assert "deidentify" in {run.flow for run in latest_runs(stack.record.addresses["prefect"])}


def test_what_a_person_can_mend_is_refused_before_a_job_is_made(stack: Running, archive: Path) -> None:
    done = deidentify(stack, archive, archive / "out")
    assert (done.returncode, "lie in one another" in done.stderr) == (2, True)
