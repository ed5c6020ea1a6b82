"""Body of `radloop deidentify`: write a source de-identified, or prove that a folder is."""

from pathlib import Path
from typing import Any

from cli.dispatch import carry_out
from cli.flow_run import checked_request, run_flow
from cli.options import read_config
from cli.terminal import note
from imaging.errors import UserFault
from services.flow_requests import DeidentifyRequest, absolute_place
from services.settings import Settings


def deidentify(
    source: str,
    destination: str,
    verify: Path | None,
    against: str,
    config: Path | None,
    as_json: bool,
    **options: Any,
) -> None:
    """Write DICOM without what identifies patients, or prove it."""
    if verify or against:
        if source or destination:
            raise UserFault("either write (SRC DST) or prove (--verify DST --against SRC): give one of them")
        if verify is None or not against:
            raise UserFault("a proof needs both: give --verify DST --against SRC")
        carry_out("proof:print_proof", folder=verify, against=against, as_json=as_json)
        return
    part = read_config(config, DeidentifyRequest) if config else {}
    places = {"source": source or part.get("source"), "destination": destination or part.get("destination")}
    if not all(places.values()):
        raise UserFault("give the source and the destination: radloop deidentify SRC DST")
    asked = {name: absolute_place(str(place)) for name, place in places.items()}
    run_flow("deidentify", checked_request("deidentify", config, asked | {"options": options}), as_json)
    settings = Settings()
    if settings.key is None:
        note(
            f"Keep a copy of {settings.private / 'pseudonym.key'} in a safe place, and never beside the data: "
            "only with this key can the folder be continued or proven"
        )
