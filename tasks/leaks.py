"""Owns the search of what a night leaves for identifiers of the patients it has read."""

from prefect import task
from prefect.cache_policies import NO_CACHE

from tasks.requests import IngestRequest
from tasks.settings import Settings


@task(name="search for leaks", cache_policy=NO_CACHE)
def search_leaks(request: IngestRequest, settings: Settings, seed: str) -> dict[str, int]:
    """Stop the night where what it leaves holds an identifier; return how much was searched.

    Raises EnvironmentFault: which file, which kind of identifier, never the value.
    """
    raise NotImplementedError
