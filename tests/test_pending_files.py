"""Pending files of nights that fail, crash, or see the source change: what they leave harms no later night."""

import os
import shutil
from collections.abc import Callable, Iterator, Mapping
from functools import partial
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
import PIL.Image
import pytest
from hypothesis import HealthCheck, Phase, given
from hypothesis import settings as options
from hypothesis import strategies as st

from imaging.dataset.ingest.journal import Journal
from imaging.dataset.version.dataset_version import newest_version
from imaging.errors import UserFault
from services.flow_requests import IngestRequest
from services.ray import chunk_pool as chunks
from services.ray import ingest_worker
from services.settings import Settings
from tasks import ingest
from tests.growing_archive import content
from tests.ingest_process import KEY, NoSandbox
from tests.synthetic import write_labels

ALWAYS, FIRST, MOST = 12, 15, 20
"""Files that always stay whole, and alone have labels, so that each side of the split has patients of both classes;
files of the first night; files of all nights."""
PUBLISHED, ONE_CLASS, BEFORE_POINTER, AFTER_POINTER = (
    "published",
    "one class",
    "before pointer",
    "after pointer",
)
ENDINGS = (PUBLISHED, ONE_CLASS, BEFORE_POINTER, AFTER_POINTER, 1, 2, 3)
"""How a night ends: a number says before which chunk it crashes."""


class Crash(BaseException):
    """End of a process in the middle of a night."""


def table(*labels: str) -> list[Mapping[str, str]]:
    classes = [*labels * (ALWAYS // 2), *[""] * (MOST - ALWAYS)]
    return [{"file": f"{n:02d}.png", "PatientID": f"P{n}", "label": name} for n, name in enumerate(classes)]


class Archive:
    """Folder of pictures, one a patient, that changes between nights."""

    def __init__(self, root: Path) -> None:
        self.root, self.folder = root, root / "source"
        self.folder.mkdir()
        self.clock, self.earlier = 0, list[tuple[Path, bytes, int]]()
        for number in range(FIRST):
            self.rewrite(self.folder / f"{number:02d}.png")
        self.labels = write_labels(root / "labels.csv", table("no", "yes"))
        self.one_class = write_labels(root / "one.csv", table("no", "no"))

    def change(self, kind: str, number: int) -> None:
        """Change a file, or add it; those that always stay are never removed or damaged."""
        path = self.folder / f"{number:02d}.png"
        if path.exists():
            self.earlier.append((path, path.read_bytes(), path.stat().st_mtime_ns))
        if number < ALWAYS or not path.exists():
            kind = "touch" if kind == "touch" and path.exists() else "rewrite"
        getattr(self, kind)(path)

    def rewrite(self, path: Path) -> None:
        """Write other pixels."""
        picture, made = BytesIO(), np.random.default_rng(1 + self.clock).integers(0, 255, (16, 16), np.uint8)
        PIL.Image.fromarray(made).save(picture, "PNG")
        self.write(path, picture.getvalue())

    def touch(self, path: Path) -> None:
        self.write(path, path.read_bytes())

    def damage(self, path: Path) -> None:
        self.write(path, path.read_bytes()[:-20])

    def remove(self, path: Path) -> None:
        path.unlink()

    def restore(self, path: Path) -> None:
        """Bring the oldest state of the file back, with its time, as from a copy."""
        name, data, mtime_ns = next(state for state in self.earlier if state[0] == path)
        name.write_bytes(data)
        os.utime(name, ns=(mtime_ns, mtime_ns))

    def write(self, path: Path, data: bytes) -> None:
        self.clock += 1
        path.write_bytes(data)
        os.utime(path, ns=(self.clock * 10**9,) * 2)


CHANGE = st.tuples(
    st.sampled_from(("rewrite", "touch", "damage", "remove", "restore")), st.integers(0, MOST - 1)
)
# Without shrinking, which would take minutes here.
TRIED = (Phase.explicit, Phase.reuse, Phase.generate)
NIGHT = st.tuples(st.lists(CHANGE, max_size=4), st.sampled_from(ENDINGS))


@pytest.fixture
def plain(monkeypatch: pytest.MonkeyPatch) -> None:
    """Read in this process, in chunks of three files, without waiting for the disk."""
    monkeypatch.setenv("RADLOOP_KEY", KEY)
    monkeypatch.setattr(ingest, "run_chunks", partial(chunks.run_chunks, chunk_items=3))
    monkeypatch.setattr(ingest_worker, "Pool", NoSandbox)
    for call in ("fsync", "fdatasync"):
        monkeypatch.setattr(os, call, lambda _: None)


def take_in(archive: Archive, home: Path, ending: str | int = PUBLISHED) -> None:
    """Pass a night that ends in one of ENDINGS."""
    table = archive.one_class if ending == ONE_CLASS else archive.labels
    request = IngestRequest(source=str(archive.folder), labels=str(table), dataset="d")
    settings = Settings(home=home)
    with pytest.MonkeyPatch.context() as patched:
        if isinstance(ending, int):
            left = iter(range(ending))
            patched.setattr(Journal, "add", crash_before(Journal.add, lambda: next(left, None) is None))
        elif ending == BEFORE_POINTER:
            patched.setattr(ingest, "publish", crash_before(ingest.publish))
        elif ending == AFTER_POINTER:
            patched.setattr(Journal, "drop", crash_before(Journal.drop, lambda: newest(home) != before))
        before = newest(home)
        job = ingest.open_job.fn(request, settings)
        ingest.publish_version.fn(job, ingest.read_new.fn(job, settings, "", lambda *_: None), settings)


def crash_before(do: Callable[..., Any], now: Callable[[], bool] = lambda: True) -> Callable[..., Any]:
    def crashing(*given: Any, **named: Any) -> Any:
        if now():
            raise Crash
        return do(*given, **named)

    return crashing


def newest(home: Path) -> Mapping[str, Any] | None:
    """Return what is in the newest version, but sides of the split and tombstones, which tell of earlier nights."""
    whole = content(newest_version(Settings(home=home).dataset_store, "d"))
    if whole is None:
        return None
    examples = [{name: value for name, value in row.items() if name != "split"} for row in whole["examples"]]
    return {"examples": examples, "quarantine": whole["quarantine"], "images": whole["images"]}


@pytest.fixture
def archive(tmp_path: Path, plain: None) -> Archive:
    return Archive(tmp_path)


def journal_of(home: Path) -> Iterator[str]:
    return (one.name for one in Settings(home=home).dataset_store.names("datasets/d/journal/"))


@pytest.mark.parametrize("kind", ["touch", "rewrite"])
def test_a_file_that_changed_after_a_night_without_a_version_is_taken_in(archive: Archive, kind: str) -> None:
    home = archive.root / "home"
    # Which of two chunks comes first is decided by digests: with so many times each order occurs.
    for _ in range(5):
        with pytest.raises(UserFault):
            take_in(archive, home, ONE_CLASS)
        archive.change(kind, 3)
    take_in(archive, home)
    take_in(archive, archive.root / "fresh")
    assert newest(home) == newest(archive.root / "fresh")


def test_nights_without_a_version_leave_no_chunks_of_earlier_states(archive: Archive) -> None:
    home, counts = archive.root / "home", []
    for _ in range(3):
        for number in range(FIRST):
            archive.change("touch", number)
        with pytest.raises(UserFault):
            take_in(archive, home, ONE_CLASS)
        counts.append(len(list(journal_of(home))))
    assert counts == [counts[0]] * 3


@pytest.mark.slow
@given(nights=st.lists(NIGHT, min_size=1, max_size=7))
@options(max_examples=25, phases=TRIED, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_whatever_failed_before_a_night_publishes_what_is_listed(
    plain: None,
    tmp_path_factory: pytest.TempPathFactory,
    nights: list[tuple[list[tuple[str, int]], str | int]],
) -> None:
    root = tmp_path_factory.mktemp("nights")
    archive, home = Archive(root), root / "home"
    for number, (changes, ending) in enumerate([*nights, ([], PUBLISHED)]):
        for change in changes:
            archive.change(*change)
        try:
            take_in(archive, home, ending)
        except Crash:
            assert ending not in (PUBLISHED, ONE_CLASS)
        except UserFault:
            assert ending == ONE_CLASS
        if ending == PUBLISHED:
            fresh = root / f"fresh{number}"
            take_in(archive, fresh)
            assert newest(home) == newest(fresh)
            assert list(journal_of(home)) == []
    shutil.rmtree(root)
