"""One of two checkouts whose outputs are compared: runs its commands and keeps what they print and leave as facts.

What differs from run to run is masked; everything else is compared digit by digit.
"""

import hashlib
import os
import re
import sqlite3
import subprocess
import sys
import time
from contextlib import closing, suppress
from dataclasses import dataclass, field
from pathlib import Path

import onnx

COMMAND_LINE = """
import sys
from pathlib import Path
if Path("cli/main.py").exists():
    from cli.main import main
else:
    from flows.cli import main
sys.argv[0] = "radloop"
main()
"""
STATUSES = {"demo": (2,), "check": (0, 1), "diff": (0, 1), "reevaluate": (0, 2)}
"""Exit statuses by a word of the command, else 0: sets may hold equal images, and no model may have become champion."""

TIMED = ("first_step_s", "images_per_s", "seconds")
"""Metrics of an epoch that are durations or rates. All others are compared digit by digit."""
MASKS = (
    # The blanks at the end of a line, of which there are as many as the paths in it leave.
    (r"(?m) +$", ""),
    # What Prefect and MLflow draw; ids of MLflow's runs and models look like digests and are replaced one by one.
    (r"\b[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}\b", "UUID"),
    (r"(?<=Beginning flow run ')[a-z]+-[a-z]+(?=' for flow)", "DRAWN"),
    # The commit of each side. Nothing else has 40 hexadecimal digits.
    (r"\b[0-9a-f]{40}(-dirty)?\b", "COMMIT"),
    # When something was done: in texts, and in the names of checkpoints, reports and reads of the test patients.
    (r"\b\d{4}-\d\d-\d\d[T ]\d\d:\d\d:\d\d(\.\d+)?(\+00:00)?", "TIME"),
    (r"checkpoint_\d{4}-\d\d-\d\d_\d\d-\d\d-\d\d\.\d+", "checkpoint_TIME"),
    (r"\b\d{8}-\d{6}(?=-[a-z0-9_-]+-v\d+\.html)", "TIME"),
    (r"\b\d{8}T\d{12}-[0-9a-f]{8}(?=\.json)", "TIME-ID"),
    # How long it took: a command, a proof (with its signature, which is over the seconds too), progress, an epoch.
    (r"took \d+\.\d s to load and \d+\.\d s to run", "took TIME"),
    (r"(?m)^( time +)\d+\.\d s$", r"\1TIME"),
    (r"(?m)^( signature \(HMAC-SHA-256 by the key\) +)[0-9a-f]{64}$", r"\1SIGNATURE"),
    (r"\d+ files/s, \d+ s left", "RATE"),
    (r"\d+ images/s, at most \d+ s left", "RATE"),
    (rf'("(?:{"|".join(TIMED)})": ?)[\d.e+-]+', r"\1TIME"),
    # The stages of a night in its page: seconds, and the length of a bar.
    (r'(<td class="n">)\d+\.\d s(</td>\s*<td style="width: 55%"><span class="bar" style="width: )[\d.]+', r"\1\2"),
    # The search for leaks goes through the files of the last minutes, for a sample that the report's name draws.
    (r"searched \d+ files for \d+ identifiers", "searched FILES for SAMPLE identifiers"),
)  # fmt: skip
TEXTS = {".html", ".json", ".jsonl", ".csv", ".txt", ".yaml", ""}
"""Endings of files that are masked before they are hashed; all others are hashed as they are."""

PREFECT_ROWS = (
    # Runs of a flow without a name for them get one that Prefect draws.
    "select 'flow', f.name, case when r.name like f.name || ' %' then r.name else 'DRAWN' end, r.parameters,"
    " r.state_name from flow_run r join flow f on r.flow_id = f.id where r.created >= :since",
    "select 'task', case when name glob '*-[0-9a-f][0-9a-f][0-9a-f]' then substr(name, 1, length(name) - 4) else name"
    " end, state_name from task_run where created >= :since",
    "select 'artifact', key, type, description, json_extract(data, '$') from artifact"
    # One without a key is where the result of a task lies, under a name that Prefect draws.
    " where key is not null and created >= :since",
    # How often progress is printed depends on the time.
    "select 'log', level, message from log where message not glob '[0-9]*/[0-9]* files*' and created >= :since",
)
MLFLOW_ROWS = {
    "runs": (
        "select run_uuid, r.name, status, e.name, artifact_location"
        " from runs r join experiments e using (experiment_id)",
        "select name, digest, dataset_source_type, dataset_source, dataset_schema, dataset_profile from datasets",
        "select name, value from input_tags",
    ),
    "tags": ("select run_uuid, key, value from tags",),
    "parameters": ("select run_uuid, key, value from params",),
    # Those of the system are measurements of the machine, at times of their own.
    "metrics": (
        f"select run_uuid, key, step, case when key in {TIMED} then 'TIME' else value end from metrics"
        " where key not like 'system/%'",
    ),
    "versions": (
        "select name, version, status, current_stage, source, run_id, storage_location from model_versions",
        "select name, version, key, value from model_version_tags",
        "select name, alias, version from registered_model_aliases",
        "select name, description from registered_models",
    ),
    "models": (
        "select model_id, name, status, artifact_location, source_run_id from logged_models",
        "select model_id, tag_key, tag_value from logged_model_tags",
        "select model_id, param_key, param_value from logged_model_params",
    ),
}  # fmt: skip


@dataclass
class Side:
    """One of the two checkouts, the folder of its homes, and what is known of it: texts by name."""

    checkout: Path
    folder: Path
    server: str
    facts: dict[str, str] = field(default_factory=dict)
    drawn: list[tuple[str, str]] = field(default_factory=list)
    given_up: bool = False
    since: str = field(default_factory=lambda: time.strftime("%Y-%m-%d %H:%M:%S", time.gmtime()))

    def run(self, fact: str, *arguments: object, home: str, **variables: str) -> None:
        """Run a command; what it prints, its error and its exit status are a fact."""
        others = ("RADLOOP_", "PREFECT_", "MLFLOW_", "RAY_")
        environment = {name: value for name, value in os.environ.items() if not name.startswith(others)}
        environment |= {
            "RADLOOP_HOME": str(self.folder / home),
            "RADLOOP_KEY": "5a" * 32,
            "PYTHONPATH": str(self.checkout),
            # Sets have one order on both sides, and lines of tables break alike.
            "PYTHONHASHSEED": "0",
            "COLUMNS": "250",
            "TERM": "dumb",
        }
        if self.given_up:
            sys.exit(1)
        command = [sys.executable, "-c", COMMAND_LINE, *map(str, arguments)]
        done = subprocess.run(
            command, cwd=self.checkout, env=environment | variables, capture_output=True, text=True, check=False
        )  # fmt: skip
        allowed = next((STATUSES[word] for word in arguments if word in STATUSES), (0,))
        if done.returncode not in allowed:
            sys.exit(f"{self.checkout}: radloop {' '.join(command[3:])}\n{done.stdout}{done.stderr[-2000:]}")
        errors = [line for line in done.stderr.splitlines() if line.startswith("error:")]
        self.facts[fact] = self.masked("\n".join([done.stdout, *errors, f"exit status {done.returncode}"]))

    def masked(self, text: str) -> str:
        """Return a text without what differs from run to run."""
        for path, name in ((self.folder, "FOLDER"), (self.checkout, "CHECKOUT")):
            text = text.replace(str(path), name)
        for pattern, name in (*self.drawn, *MASKS):
            text = re.sub(pattern, name, text)
        text = re.sub(r"(?m)^(\| | )where the time went.*\n(.*\S.*\n)+", _without_seconds, text)
        return re.sub(r"(?s)<th class=\"n\">Epoch</th>.*?</table>", _without_timed_columns, text)

    def files(self, fact: str, root: Path, left_out: str = "\0") -> None:
        """Keep the names and digests of all files below a folder, but those whose name begins with `left_out`."""
        names = {path: path.relative_to(root).as_posix() for path in root.rglob("*") if path.is_file()}
        self.facts[fact] = "\n".join(
            sorted(
                f"{self.masked(name)}  {self.digest(path)}"
                for path, name in names.items()
                if not name.startswith(left_out)
            )
        )

    def digest(self, path: Path) -> str:
        """Return the digest of a file; of a model with its weights, which MLflow puts into a file of a drawn name."""
        content = path.read_bytes()
        if path.suffix == ".onnx":
            content = onnx.load(path).SerializeToString(deterministic=True)
        elif path.suffix in TEXTS:
            with suppress(UnicodeDecodeError):
                content = self.masked(content.decode()).encode()
        return hashlib.sha256(content).hexdigest()

    def rows(self, fact: str, database: Path, *queries: str, since: str = "") -> None:
        """Keep rows of a database, those of each query sorted: what threads write has no order."""
        with closing(sqlite3.connect(database)) as opened:
            results = [opened.execute(query, {"since": since}).fetchall() for query in queries]
        texts = [sorted(self.masked("  ".join(map(str, row))) for row in rows) for rows in results]
        self.facts[fact] = "\n".join(text for some in texts for text in some)


def _without_seconds(block: re.Match[str]) -> str:
    """Return the stages of a night without seconds, and without the widths that these give the table."""
    return re.sub(r"(?m)\d+\.\d(?= ?\|?$)", "TIME", re.sub(r" +|─+", " ", block[0]))


def _without_timed_columns(table: re.Match[str]) -> str:
    """Return a page's table of epochs without the columns of durations and rates."""
    head = re.findall(r'<th class="n">([^<]*)', table[0])
    timed = [title in ("First step s", "Images per s", "Seconds") for title in head]

    def row(match: re.Match[str]) -> str:
        cells = re.findall(r'<td class="n">([^<]*)', match[0])
        return "  ".join("TIME" if hidden else cell for cell, hidden in zip(cells, timed, strict=True))

    return re.sub(r'(<td class="n">[^<]*</td>)+', row, table[0])
