"""JSON objects that tests de-identify where DICOM does not matter, and functions of the sandbox that know them."""

import json
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from blake3 import blake3

from imaging.errors import EnvironmentFault
from imaging.pseudonyms import Pseudonyms, canonical_patient_id

FUNCTION = "tests.json_objects:deidentify"
SLOW = "tests.json_objects:deidentify_slowly"
BROKEN = "tests.json_objects:broken"
ESCAPING = "tests.json_objects:escaping"


def write_object(
    folder: Path, name: str, patient: str = "P1", instance: str = "1.2.3", body: str = ""
) -> Path:
    """Write an object whose fields say what it is; `body` that begins with a ! is the reason why it is refused."""
    path = folder / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps({"patient": patient, "instance": instance, "body": body}))
    return path


def deidentify(
    setup: Mapping[str, Any], value: Mapping[str, Any], blobs: Sequence[bytes | Path]
) -> tuple[Any, Sequence[bytes]]:
    """Return the output of an object, as `imaging.deidentify.payload.deidentify_payload` does."""
    blob = blobs[0]
    fields = json.loads(blob.read_bytes() if isinstance(blob, Path) else blob)
    if fields["body"].startswith("!"):
        return {"fault": [fields["body"][1:], ""]}, ()
    keys = Pseudonyms(bytes.fromhex(setup["secret"]))
    uids = {"study": keys.uid("s" + fields["patient"]), "series": keys.uid("t" + fields["patient"])}
    names = {"patient": keys.patient_id(fields["patient"]), **uids, "instance": keys.uid(fields["instance"])}
    content = json.dumps(names | {"body": fields["body"]}).encode() * 2000
    answer = names | {"blake3": blake3(content).hexdigest(), "findings": []}
    answer["patient_variant"] = keys.patient_id(canonical_patient_id(fields["patient"]))
    return answer, [content]


def deidentify_slowly(
    setup: Mapping[str, Any], value: Mapping[str, Any], blobs: Sequence[bytes | Path]
) -> tuple[Any, Sequence[bytes]]:
    """De-identify after a short wait, so that a run can be interrupted."""
    time.sleep(0.005)
    return deidentify(setup, value, blobs)


def broken(
    setup: Mapping[str, Any], value: Mapping[str, Any], blobs: Sequence[bytes | Path]
) -> tuple[Any, Sequence[bytes]]:
    """Stand for an installation that lacks something."""
    raise EnvironmentFault("the model of letters is missing: install it")


def escaping(
    setup: Mapping[str, Any], value: Mapping[str, Any], blobs: Sequence[bytes | Path]
) -> tuple[Any, Sequence[bytes]]:
    """Stand for a worker that a file has taken over: its answer leads out of the destination."""
    answer, content = deidentify(setup, value, blobs)
    return {**answer, "series": ".."}, content
