"""Comparison of all that two checkouts write: shows that a refactoring changed no byte.

`python -m bench.same_bytes --against 16ca9f6` runs one list of commands in a worktree of that commit and then in this
checkout, each command as a process and each side in homes of its own, and compares what they print and leave.
It imports nothing of radloop, so that modules may move. The exit status is 1 where something differs.
"""

import argparse
import difflib
import hashlib
import json
import os
import re
import shutil
import signal
import socket
import sqlite3
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor, as_completed
from contextlib import closing, contextmanager, suppress
from pathlib import Path

import pyarrow.parquet as pq
import yaml

from bench.compared_side import MLFLOW_ROWS, PREFECT_ROWS, Side

REPOSITORY = Path(__file__).resolve().parent.parent
DATA = Path(os.environ.get("RADLOOP_DATA", REPOSITORY.parent / "shared/data")).resolve()
SETS = ("ct-contrast", "pneumoniamnist.npz", "cardiac-mr")
CLOSED = "http://127.0.0.1:9"
"""An address where nothing answers: with it `radloop demo` writes the first day of its phantom and stops there."""
MTIME_S = 1_600_000_000
"""Of all files of the phantom: a dataset version contains the times of its sources."""
ALL, FIRST, FEW = 60, 40, 12
"""Patients of the phantom: in all, in the first night, and de-identified, since the search for text is slow."""
TRAINING = {"network": "small_cnn", "epochs": 4, "batch_size": 16, "workers": 1, "ema_decay": 0.5, "seed": 7}
LUNG = {"window": {"center": -300, "width": 1400}, "size_px": 64}
INPUT = {"dataset": "phantom", "positive": "lesion", "preprocess": LUNG}
NIGHT_1 = INPUT | {"training": TRAINING, "gate": {"measure": "f1", "floor": 0.5}}
# The second night meets a champion, and trains another network on two workers.
NIGHT_2 = NIGHT_1 | {"training": TRAINING | {"workers": 2, "network": "residual_small", "epochs": 2}}


def facts_of(checkout: Path, folder: Path, server: str, quick: bool) -> dict[str, str]:
    """Run all commands in a checkout; return what they print and leave."""
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    side = Side(checkout, folder, server)
    closed = {"MLFLOW_TRACKING_URI": CLOSED, "RADLOOP_RAY_ADDRESS": CLOSED}
    side.run("phantom: output", "demo", home="home", **closed)
    archive = (folder / "home/demo/archive").rename(folder / "archive")
    side.files("phantom: files", archive)
    for path in archive.rglob("*"):
        os.utime(path, (MTIME_S, MTIME_S))
    # The longest first. Two at once: a command has one busy process.
    chains = [*([] if quick else [pass_nights]), ingest_sets, deidentify_sets]
    with ThreadPoolExecutor(2) as lanes:
        try:
            for done in as_completed([lanes.submit(chain, side) for chain in chains]):
                done.result()
        except BaseException:
            side.given_up = True
            raise
    side.rows("names in Prefect", folder.parent / "prefect.db", *PREFECT_ROWS, since=side.since)
    (folder / "facts.json").write_text(json.dumps(side.facts, indent=1))
    return side.facts


def ingest_sets(side: Side) -> None:
    """Take in both real sets and the phantom."""
    for command in ("--help", "run --help", "dataset --help", "deidentify --help"):
        side.run(command, *command.split(), home="home")
    table = ("--labels", DATA / "ct-contrast/labels.csv", "--positive", "contrast")
    given = {
        "ct-contrast": ("--source", DATA / "ct-contrast", *table),
        "pneumoniamnist": ("--source", DATA / "pneumoniamnist.npz"),
        "phantom": night(part(side, "ingested", FEW), INPUT),
    }
    names = [name for name, (_, source, *_) in given.items() if source.exists()]
    wait_for(side.server)
    for name in names:
        arguments = ("ingest", *given[name], "--name", name)
        side.run(f"ingest: output for {name}", *arguments, home="home", PREFECT_API_URL=side.server)
    # The last of them, with more patients.
    part(side, "ingested", ALL)
    side.run("ingest: output for the grown phantom", *arguments, home="home", PREFECT_API_URL=side.server)
    ask_datasets(side, "ingest", "home", names, f"diff {names[0]} phantom --json")


def deidentify_sets(side: Side) -> None:
    """Inspect all sets, de-identify two of them and prove it."""
    sources = {"phantom": side.folder / "archive/dicom"} | {name: DATA / name for name in SETS}
    sources = {name: source for name, source in sources.items() if source.is_dir()}
    for name, source in sources.items():
        side.run(f"inspect: JSON of {name}", "inspect", source, "--json", home="apart")
    sources["phantom"] = part(side, "few", FEW) / "dicom"
    sources.pop("cardiac-mr", None)
    # With a key from the environment nothing makes this folder, and the list of problems has no place.
    (side.folder / "apart/private").mkdir(parents=True, exist_ok=True)
    wait_for(side.server)
    for name, source in sources.items():
        made, server = side.folder / f"deidentified-{name}", {"PREFECT_API_URL": side.server}
        side.run(f"deidentify: output for {name}", "deidentify", source, made, home="apart", **server)
        side.files(f"deidentify: objects of {name}", made, ".radloop/parts/")
        # Rows stand in the order in which workers end.
        rows = pq.read_table(made / ".radloop/parts").to_pylist()
        side.facts[f"deidentify: ledger of {name}"] = "\n".join(sorted(map(str, rows)))
        arguments = ("deidentify", "--verify", made, "--against", source)
        side.run(f"deidentify: proof of {name}", *arguments, home="apart")
    side.files("deidentify: private lists", side.folder / "apart/private")


def pass_nights(side: Side) -> None:
    """Pass two nights over a phantom that grows, then evaluate, re-evaluate, and train what is trained already."""
    home = side.folder / "nights"
    given = night(part(side, "nightly", FIRST), NIGHT_1)
    side.run("nights: output of the first", "run", *given, home="nights")
    first = current(home, "phantom")
    given = night(part(side, "nightly", ALL), NIGHT_2)
    side.run("nights: output of the second", "run", *given, home="nights")
    for command in ("evaluate", "reevaluate", "train"):
        side.run(f"nights: output of {command}", command, *given[-2:], home="nights")
    with closing(sqlite3.connect(home / "mlflow.db")) as registry:
        for query, name in (
            ("select run_uuid from runs order by start_time", "RUN"),
            ("select model_id from logged_models order by creation_timestamp_ms", "MODEL"),
        ):
            ids = registry.execute(query).fetchall()
            side.drawn += [(drawn, f"{name}-{number}") for number, (drawn,) in enumerate(ids, 1)]
    for fact, queries in MLFLOW_ROWS.items():
        side.rows(f"nights: MLflow's {fact}", home / "mlflow.db", *queries)
    side.rows("nights: names in Prefect", home / "prefect.db", *PREFECT_ROWS)
    side.files("nights: files of MLflow", home / "mlartifacts")
    side.facts["nights: ONNX bytes"] = "\n".join(sorted(map(side.digest, home.rglob("*.onnx"))))
    for path in (
        *(home / "store/reports").iterdir(),
        home / "store/ledger/phantom.jsonl",
        home / "nightly.json",
    ):
        pictured = re.sub(r"(?<=;base64,)[A-Za-z0-9+/=]+", _picture, path.read_text())
        side.facts[f"nights: {side.masked(path.name)}"] = side.masked(pictured)
    ask_datasets(side, "nights", "nights", ["phantom"], f"diff phantom@{first} phantom --json")


def _picture(content: re.Match[str]) -> str:
    return f"picture {hashlib.sha256(content[0].encode()).hexdigest()}"


def ask_datasets(side: Side, chain: str, home: str, names: list[str], diff: str) -> None:
    """Ask all that there is JSON of, keep all files of the store, and collect what no version needs."""
    exported = side.folder / f"exported-{chain}"
    commands = [f"{command} {name} --json" for name in names for command in ("show", "check", "verify")]
    commands += ["list --json", diff, f"export phantom {exported} --with-test --json", "show phantom"]
    for command in commands:
        side.run(f"{chain}: dataset {side.masked(command)}", "dataset", *command.split(), home=home)
    for name in names:
        side.facts[f"{chain}: digest of {name}"] = current(side.folder / home, name)
    side.files(f"{chain}: exported files", exported)
    side.files(f"{chain}: files of the store", side.folder / home / "store")
    side.files(f"{chain}: private lists", side.folder / home / "private")
    # A journal of SQLite is there or not, as the last process ended.
    names_there = (path.name for path in (side.folder / home).iterdir() if ".db-" not in path.name)
    side.facts[f"{chain}: names in the home"] = "\n".join(sorted(names_there))
    collect = ("gc", "--keep", "1", "--grace-hours", "0", "--yes", "--json")
    side.run(f"{chain}: dataset gc --json", "dataset", *collect, home=home)
    side.files(f"{chain}: files of the store after gc", side.folder / home / "store")


def part(side: Side, name: str, patients: int) -> Path:
    """Copy the phantom of so many patients, or add those that are missing; files keep their times."""
    later = {path.name for path in sorted((side.folder / "archive/dicom").glob("*_*_*_*"))[patients:]}
    ignore: Callable[[str, list[str]], set[str]] = lambda _, names: later.intersection(names)  # noqa: E731
    return shutil.copytree(side.folder / "archive", side.folder / name, ignore=ignore, dirs_exist_ok=True)


def night(archive: Path, request: Mapping[str, object]) -> tuple[str | Path, ...]:
    """Return the options of a request over a phantom."""
    config = archive / "request.yaml"
    config.write_text(yaml.safe_dump(request))
    return ("--source", archive / "dicom", "--labels", archive / "labels.csv", "--config", config)


def current(home: Path, name: str) -> str:
    """Return the digest of the newest version of a dataset."""
    return (home / "store/datasets" / name / "current").read_text().strip()


@contextmanager
def prefect_server(folder: Path) -> Iterator[str]:
    """Start a server for all but the nights, and end it: the one that a command starts for itself takes 8 s."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "prefect.db").unlink(missing_ok=True)
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    settings = {
        "PREFECT_HOME": str(folder / "prefect"),
        "PREFECT_API_DATABASE_CONNECTION_URL": f"sqlite+aiosqlite:///{folder / 'prefect.db'}",
        "PREFECT_SERVER_ANALYTICS_ENABLED": "false",
        "DO_NOT_TRACK": "true",
    }
    command = [sys.executable, *f"-m prefect server start --host 127.0.0.1 --port {port}".split()]
    with (folder / "prefect.log").open("w") as log:
        # In a group of its own, with the process that it starts.
        started = subprocess.Popen(
            command, env=os.environ | settings, stdout=log, stderr=log, start_new_session=True
        )
    try:
        yield f"http://127.0.0.1:{port}/api"
    finally:
        os.killpg(started.pid, signal.SIGTERM)
        started.wait(60)


def wait_for(server: str, limit_s: float = 300) -> None:
    """Wait until a server answers."""
    end = time.monotonic() + limit_s
    while time.monotonic() < end:
        with suppress(OSError), urllib.request.urlopen(f"{server}/health", timeout=5):
            return
        time.sleep(0.5)
    sys.exit(f"Prefect's server at {server} did not answer within {limit_s} s")


@contextmanager
def checked_out(wish: str, folder: Path) -> Iterator[Path]:
    """Hand out the folder that was named, or a worktree of a commit for the time of the block."""
    if Path(wish).is_dir():
        yield Path(wish).resolve()
        return
    tree, git = str(folder / "worktree"), ("git", "-C", str(REPOSITORY), "worktree")
    subprocess.run([*git, "add", "--quiet", "--force", "--detach", tree, wish], check=True)
    try:
        yield Path(tree)
    finally:
        subprocess.run([*git, "remove", "--force", tree], check=True)


def verdicts(old: dict[str, str], new: dict[str, str]) -> Iterator[str]:
    """Yield a line for each fact, and under one that differs the first lines that do."""
    for fact in sorted(old.keys() | new.keys()):
        before, after = old.get(fact, "(nothing)"), new.get(fact, "(nothing)")
        if before == after:
            yield f"same     {fact}  {hashlib.sha256(before.encode()).hexdigest()[:12]}"
            continue
        yield f"DIFFERS  {fact}"
        lines = difflib.unified_diff(
            before.splitlines(), after.splitlines(), "against", "this", n=0, lineterm=""
        )
        yield from (f"         {line[:400]}" for line, _ in zip(lines, range(14), strict=False))


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--against", help="commit or checkout whose bytes are the right ones")
    parser.add_argument("--reuse", type=Path, help="instead: folder of an earlier --keep that has them")
    parser.add_argument(
        "--tree", type=Path, default=REPOSITORY, help="checkout to look at (default: this one)"
    )
    parser.add_argument("--quick", action="store_true", help="leave out training and all that follows it")
    parser.add_argument("--keep", type=Path, help="folder in which the homes of both sides stay")
    asked = parser.parse_args()
    if bool(asked.against) == bool(asked.reuse):
        parser.error("give one of --against and --reuse")
    begun = time.monotonic()
    # So that the server and the worktree go, however this ends.
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    with tempfile.TemporaryDirectory() as passing:
        work = (asked.reuse or asked.keep or Path(passing)).resolve()
        with prefect_server(work) as server:
            if asked.reuse:
                old = json.loads((work / "old/facts.json").read_text())
                if not asked.quick and "nights: ONNX bytes" not in old:
                    parser.error(f"{work} was made with --quick: give it here too, or make it anew")
            else:
                with checked_out(asked.against, work) as checkout:
                    old = facts_of(checkout, work / "old", server, asked.quick)
            new = facts_of(asked.tree.resolve(), work / "new", server, asked.quick)
    if asked.quick:
        old = {fact: text for fact, text in old.items() if not fact.startswith("nights: ")}
    lines = list(verdicts(old, new))
    differ = sum(line.startswith("DIFFERS") for line in lines)
    lines += [f"left out {name}: not in {DATA}" for name in SETS if not (DATA / name).exists()]
    print(*lines, f"{len(old)} facts, {differ} differ, {time.monotonic() - begun:.0f} s", sep="\n")
    return min(differ, 1)


if __name__ == "__main__":
    sys.exit(main())
