"""Owns objects that tests de-identify where DICOM does not matter: a JSON line each, and a worker that knows them."""

import json
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from blake3 import blake3

from imaging.errors import EnvironmentFault
from imaging.pseudonyms import Pseudonyms, canonical_patient_id

FUNCTION = "tests.twins:twin"
SLOW = "tests.twins:slow_twin"
BROKEN = "tests.twins:broken"
ESCAPING = "tests.twins:escaping"


def write_object(
    folder: Path, name: str, patient: str = "P1", instance: str = "1.2.3", body: str = ""
) -> Path:
    """Write an object whose fields say what it is; `body` that begins with a ! is the reason why it is refused."""
    path = folder / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps({"patient": patient, "instance": instance, "body": body}))
    return path


def twin(
    setup: Mapping[str, Any], value: Mapping[str, Any], blobs: Sequence[bytes | Path]
) -> tuple[Any, Sequence[bytes]]:
    """Return the twin of an object, as `imaging.deidentify.payload.deidentify_parcel` does."""
    blob = blobs[0]
    told = json.loads(blob.read_bytes() if isinstance(blob, Path) else blob)
    if told["body"].startswith("!"):
        return {"fault": [told["body"][1:], ""]}, ()
    keys = Pseudonyms(bytes.fromhex(setup["secret"]))
    uids = {"study": keys.uid("s" + told["patient"]), "series": keys.uid("t" + told["patient"])}
    names = {"patient": keys.patient_id(told["patient"]), **uids, "instance": keys.uid(told["instance"])}
    content = json.dumps(names | {"body": told["body"]}).encode() * 2000
    answer = names | {"blake3": blake3(content).hexdigest(), "findings": []}
    answer["patient_variant"] = keys.patient_id(canonical_patient_id(told["patient"]))
    return answer, [content]


def slow_twin(
    setup: Mapping[str, Any], value: Mapping[str, Any], blobs: Sequence[bytes | Path]
) -> tuple[Any, Sequence[bytes]]:
    """Take a moment for it, so that a run can be interrupted."""
    time.sleep(0.005)
    return twin(setup, value, blobs)


def broken(
    setup: Mapping[str, Any], value: Mapping[str, Any], blobs: Sequence[bytes | Path]
) -> tuple[Any, Sequence[bytes]]:
    """Stand for an installation that lacks something."""
    raise EnvironmentFault("the model of letters is missing: install it")


def escaping(
    setup: Mapping[str, Any], value: Mapping[str, Any], blobs: Sequence[bytes | Path]
) -> tuple[Any, Sequence[bytes]]:
    """Stand for a worker that a file has taken over: its answer leads out of the destination."""
    answer, content = twin(setup, value, blobs)
    return {**answer, "series": ".."}, content
