"""Settings: the environment is read in one place, and what is not set is embedded."""

import os
import subprocess
import sys
from pathlib import Path
from urllib.parse import urlsplit
from urllib.request import proxy_bypass

import httpx
import pytest
import requests
from botocore.utils import get_environ_proxies

from imaging.errors import EnvironmentFault, UserFault
from services.settings import Settings, activate, direct_hosts

REPOSITORY = Path(__file__).parent.parent
READS = ("os.environ", "os.getenv", "environ[", "environ.get")


def test_everything_has_a_place_below_the_home(settings: Settings) -> None:
    places = (settings.store_root, settings.private)
    assert all(settings.folder in place.parents for place in places)
    assert settings.tracking_uri == f"sqlite:///{settings.folder}/mlflow.db"


def test_the_home_is_absolute(environment: None, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.chdir(tmp_path)
    assert Settings().folder == tmp_path / ".radloop"


def test_reading_settings_makes_no_folder(settings: Settings) -> None:
    assert settings.store_root
    assert not settings.folder.exists()


def test_a_store_of_ones_own_is_used(settings: Settings, tmp_path: Path) -> None:
    os.environ["RADLOOP_STORE"] = str(tmp_path / "elsewhere")
    assert Settings().folder_store.root == tmp_path / "elsewhere"


def test_a_store_on_s3_leaves_what_is_of_this_machine_in_the_home(settings: Settings) -> None:
    os.environ["RADLOOP_STORE"] = "s3://bucket/prefix"
    on_s3 = Settings()
    assert (on_s3.dataset_place, on_s3.store_root) == ("s3://bucket/prefix", on_s3.folder / "store")


def test_the_cache_of_a_store_on_s3_has_a_limit_in_gigabytes(settings: Settings) -> None:
    os.environ |= {"RADLOOP_STORE": "s3://bucket/prefix", "RADLOOP_CACHE_GB": "0.5"}
    assert Settings().dataset_store.cache.limit_bytes == 500_000_000  # type: ignore[attr-defined]


@pytest.mark.parametrize("limit", ["0", "-1", "much"])
def test_a_limit_that_keeps_nothing_is_refused(settings: Settings, limit: str) -> None:
    os.environ["RADLOOP_CACHE_GB"] = limit
    with pytest.raises(ValueError, match="cache_gb"):
        Settings()


def test_a_store_of_no_known_kind_is_refused(environment: None) -> None:
    os.environ["RADLOOP_STORE"] = "gs://bucket/prefix"
    with pytest.raises(UserFault, match="of no known kind"):
        _ = Settings().dataset_store


def test_a_server_decides_where_its_files_go(environment: None) -> None:
    os.environ["MLFLOW_TRACKING_URI"] = "http://tracking:5000"
    assert Settings().tracking_uri == "http://tracking:5000"
    assert Settings().artifact_location is None


def test_a_place_for_files_that_is_given_wins(environment: None) -> None:
    os.environ |= {"MLFLOW_TRACKING_URI": "http://tracking:5000", "RADLOOP_ARTIFACTS": "s3://bucket"}
    assert Settings().artifact_location == "s3://bucket"


def test_activating_sets_what_is_not_set(settings: Settings) -> None:
    activate()
    assert os.environ["MLFLOW_TRACKING_URI"] == settings.tracking_uri
    assert os.environ["PREFECT_HOME"] == str(settings.folder / "prefect")


def test_activating_changes_nothing_that_is_set(settings: Settings) -> None:
    os.environ["PREFECT_HOME"] = "/somewhere"
    activate()
    assert os.environ["PREFECT_HOME"] == "/somewhere"


def test_activating_twice_is_activating_once(settings: Settings) -> None:
    first = activate()
    before = dict(os.environ)
    second = activate()
    assert os.environ == before
    assert second.artifact_location == first.artifact_location


def test_a_named_home_wins(settings: Settings, tmp_path: Path) -> None:
    assert activate(tmp_path / "other").folder == tmp_path / "other"


def test_a_home_that_cannot_be_made_is_a_fault_of_the_environment(environment: None, tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(EnvironmentFault, match=r"cannot make the home .*/file/home .*: give --home a folder"):
        activate(tmp_path / "file" / "home")


def test_no_other_module_reads_the_environment() -> None:
    # activate's own setting of RADLOOP_HOME from --home is the command line's only touch; the sandbox reads none, it
    # hands two variables of the system to its workers and keeps all others back.
    allowed = {"services/settings.py", "cli/main.py", "imaging/sandbox/worker_process.py"}
    modules = [
        path
        for root in ("cli", "flows", "tasks", "services", "models", "imaging")
        for path in (REPOSITORY / root).rglob("*.py")
    ]
    readers = {
        str(path.relative_to(REPOSITORY))
        for path in modules
        if any(word in path.read_text() for word in READS)
    }
    assert readers <= allowed


@pytest.mark.slow
def test_importing_the_tasks_does_nothing(tmp_path: Path) -> None:
    code = "import tasks.ingest, tasks.training, tasks.promotion, tasks.reporting, cli.main"
    environment = {"PATH": os.environ["PATH"], "HOME": str(tmp_path), "PYTHONPATH": str(REPOSITORY)}
    subprocess.run(
        [sys.executable, "-B", "-c", code], cwd=tmp_path, env=environment, check=True, capture_output=True
    )
    assert not [path for path in tmp_path.rglob("*") if "radloop" in path.name or "mlruns" in path.name]


def test_a_worker_with_another_key_than_the_run_is_refused(tmp_path: Path) -> None:
    run, worker = (Settings(home=tmp_path / name) for name in ("run", "worker"))
    fingerprint = run.pseudonyms().fingerprint
    assert run.pseudonyms_of_run(fingerprint).fingerprint == fingerprint
    with pytest.raises(EnvironmentFault, match=f"the run has {fingerprint}: give all nodes the same home"):
        worker.pseudonyms_of_run(fingerprint)


LOOPBACK_URLS = ("http://127.0.0.1:4200", "http://localhost:4200", "http://[::1]:4200")
PROXY = "http://127.0.0.1:9"


def proxies_of(url: str) -> dict[str, object]:
    """Return through what each kind of client asks an address; "" where it asks directly."""
    client = httpx.Client()
    return {
        "httpx": client._transport_for_url(httpx.URL(url)) is not client._transport,
        "requests": requests.utils.get_environ_proxies(url).get("http", ""),
        "boto3": get_environ_proxies(url).get("http", "") if "[" not in url else "",
        "urllib": "" if proxy_bypass(urlsplit(url).hostname or "") else PROXY,
    }


@pytest.mark.slow
@pytest.mark.parametrize("name", ["no_proxy", "NO_PROXY"])
@pytest.mark.parametrize("proxy", ["http_proxy", "HTTP_PROXY", "all_proxy", "ALL_PROXY"])
def test_a_proxy_does_not_stand_before_the_servers_of_this_machine(
    environment: None, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, name: str, proxy: str
) -> None:
    monkeypatch.setenv(proxy, PROXY)
    monkeypatch.setenv(name, ".hospital.example, localhost")
    activate(tmp_path)
    assert os.environ[name].split(",") == [".hospital.example", "localhost", "127.0.0.1", "::1"]
    assert [set(proxies_of(url).values()) for url in LOOPBACK_URLS] == [{"", False}] * 3
    assert proxies_of("http://pacs.example")["httpx"]


@pytest.mark.parametrize(
    ("given", "wanted"),
    [
        ({}, "127.0.0.1,localhost,::1"),
        ({"no_proxy": ".a"}, ".a,127.0.0.1,localhost,::1"),
        # requests and httpx read the small one first, others the large one.
        ({"no_proxy": ".a", "NO_PROXY": ".b,.a"}, ".a,.b,127.0.0.1,localhost,::1"),
        ({"no_proxy": "10.0.0.0/8,[fe80::1]"}, "10.0.0.0/8,fe80::1,127.0.0.1,localhost,::1"),
        # Python's urllib takes it for all hosts only where it stands alone (urllib.request.proxy_bypass_environment).
        ({"NO_PROXY": "*"}, "*"),
    ],
)
def test_hosts_without_a_proxy_are_joined_from_both_spellings(given: dict[str, str], wanted: str) -> None:
    assert direct_hosts(given) == {"no_proxy": wanted, "NO_PROXY": wanted}


def test_a_job_of_a_cluster_keeps_the_hosts_of_its_node(settings: Settings) -> None:
    assert not {"no_proxy", "NO_PROXY"} & settings.defaults().keys()


@pytest.mark.parametrize("value", ["socks5://127.0.0.1:9", "SOCKS5H://proxy.example:1080"])
def test_a_socks_proxy_without_its_package_is_refused_with_the_remedy(
    environment: None, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, value: str
) -> None:
    monkeypatch.setattr("services.settings.find_spec", lambda _: None)
    monkeypatch.setenv("ALL_PROXY", value)
    with pytest.raises(
        EnvironmentFault, match=r"ALL_PROXY names a SOCKS proxy.*pip install socksio PySocks.*unset"
    ):
        activate(tmp_path)
