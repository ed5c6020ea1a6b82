"""Owns the answer to who is champion, of every model at once."""

from dataclasses import dataclass

from services.settings import Settings


@dataclass(frozen=True, kw_only=True)
class Champion:
    """A model's champion; `version` is None where no version has proved itself yet."""

    name: str
    version: int | None


def champions(settings: Settings) -> list[Champion]:
    """Return the champion of each registered model; looking makes no registry where there is none."""
    embedded = settings.tracking_uri.removeprefix("sqlite:///")
    if embedded != settings.tracking_uri and not settings.folder.joinpath(embedded).exists():
        return []
    # Loaded here: MLflow takes seconds.
    from services.mlflow.runs import reachable

    with reachable(settings) as client:
        models = client.search_registered_models()
    return [_champion(model.name, model.aliases) for model in models]


def _champion(name: str, aliases: dict[str, str]) -> Champion:
    version = aliases.get("champion")
    return Champion(name=name, version=int(version) if version else None)
