"""A person starts flows from Prefect's page, in a real browser that reaches this machine alone."""

import os
from collections.abc import Iterator
from datetime import datetime
from pathlib import Path
from typing import Any

import pytest
from playwright.sync_api import Locator, Page, TimeoutError, sync_playwright

from infra.stack.flow_runs import latest_runs
from infra.stack.servers import answer_of
from services.mlflow.registry import newest, with_facts
from services.settings import Settings
from tests.conftest import REPOSITORY, Running, until
from tests.requirements import program
from tests.synthetic import write_archive

pytestmark = pytest.mark.slow
ARGUMENTS = (
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    # No name is found: what the page needs must come from this machine.
    "--host-resolver-rules=MAP * ~NOTFOUND , EXCLUDE 127.0.0.1",
)
PAGE_LIMIT_MS = 60_000
CLICKS, CLICK_LIMIT_MS = 3, 30_000
RUN_LIMIT_S = 600
ENDED = ("COMPLETED", "FAILED", "CRASHED", "CANCELLED")
NAME = "from-the-page"


@pytest.fixture
def page() -> Iterator[Page]:
    chromium = program("chromium", "chromium")
    with sync_playwright() as driver:
        browser = driver.chromium.launch(executable_path=chromium, args=list(ARGUMENTS))
        page = browser.new_page(viewport={"width": 1280, "height": 1100}, color_scheme="light")
        page.set_default_timeout(PAGE_LIMIT_MS)
        yield page
        browser.close()


def row(page: Page, title: str) -> Locator:
    """Return the part of the form that has this title, without the parts below it."""
    condition = " or ".join(
        f"normalize-space()='{title}{more}'" for more in ("", " (Optional)", " (required)")
    )
    label = f"//span[contains(@class, 'property__label')][{condition}]"
    part = "ancestor::div[contains(concat(' ', @class, ' '), ' schema-form-property ')][1]"
    return page.locator(f"xpath={label}/{part}").first


def open_form(page: Page, prefect: str, flow: str = "nightly") -> None:
    deployment = answer_of(f"{prefect}/api/deployments/name/{flow}/{flow}")
    page.goto(f"{prefect}/deployments/deployment/{deployment['id']}", timeout=PAGE_LIMIT_MS)
    page.get_by_role("button", name="Run", exact=True).click()
    page.get_by_text("Custom run").click()
    row(page, "Source").wait_for()


def submit(page: Page) -> str:
    """Submit the form and return the id of the flow run.

    A person clicks again where the page heeds no click, because it still checks what was typed, and where a busy
    server answers 503 (its database is locked; Prefect's own client asks again too).
    """
    answers: list[str] = []
    for _ in range(CLICKS):
        try:
            with page.expect_response("**/create_flow_run", timeout=CLICK_LIMIT_MS) as made:
                page.get_by_role("button", name="Submit").click()
        except TimeoutError:
            answers.append("none")
            continue
        if made.value.status != 503:
            assert made.value.ok, made.value.text()
            return str(made.value.json()["id"])
        answers.append("503")
    raise AssertionError(f"{CLICKS} clicks made no run; answers of the server: {answers}")


def finished(prefect: str, run_id: str) -> dict[str, Any]:
    """Return a flow run once it has ended."""

    def ended() -> dict[str, Any] | None:
        run = answer_of(f"{prefect}/api/flow_runs/{run_id}") or {}
        return run if run.get("state_type") in ENDED else None

    return until(ended, f"the end of {run_id}", RUN_LIMIT_S) or {}


def log_of(prefect: str, run_id: str) -> str:
    """Return all lines in the log of a flow run and of the runs inside it."""
    inner = answer_of(
        f"{prefect}/api/flow_runs/filter", {"flow_runs": {"parent_flow_run_id": {"any_": [run_id]}}}
    )
    ids = [run_id, *(run["id"] for run in inner or [])]
    lines = answer_of(f"{prefect}/api/logs/filter", {"logs": {"flow_run_id": {"any_": ids}}, "limit": 200})
    return "\n".join(line["message"] for line in lines)


def test_the_form_opens_with_the_night_that_is_planned(page: Page, stack: Running) -> None:
    open_form(page, stack.record.addresses["prefect"])
    assert row(page, "Source").locator("textarea").input_value() == str(stack.archive)
    assert row(page, "Epochs").locator("input").input_value() == "2"
    assert page.get_by_text("Source (required)").is_visible()
    text = page.locator("body").inner_text()
    assert "is type" not in text
    assert "cannot be changed" not in text


def test_a_night_without_a_source_is_refused_in_the_form(page: Page, stack: Running) -> None:
    open_form(page, stack.record.addresses["prefect"])
    row(page, "Source").locator("textarea").fill("")
    page.get_by_role("button", name="Submit").click()
    page.get_by_text("'source' is a required property").first.wait_for()


def test_a_run_from_the_page_leaves_a_new_model_version(
    page: Page, stack: Running, client: Settings, tmp_path: Path
) -> None:
    prefect = stack.record.addresses["prefect"]
    failed: list[str] = []
    page.on("requestfailed", lambda request: failed.append(request.url))
    open_form(page, prefect)
    keep_screenshot(page)
    fill_form(page, *write_archive(tmp_path / "dicom"))
    run_id = submit(page)

    run = finished(prefect, run_id)

    assert run["state_type"] == "COMPLETED", log_of(prefect, run_id)
    assert (
        run["name"]
        == f"nightly {NAME} {datetime.fromisoformat(run['expected_start_time']).astimezone():%Y-%m-%d}"
    )
    assert "epoch 1/1" in log_of(prefect, run_id)
    made = newest(client, NAME)
    assert made is not None
    assert with_facts(client, made).tags["network"] == "small_cnn"
    assert not [url for url in failed if not url.startswith(prefect)]
    # Of a version its page shows the verdict, and behind a click the report.
    page.goto(f"{stack.record.addresses['mlflow']}/#/models/{NAME}/versions/{made.version}")
    page.get_by_text("romoted: ").first.wait_for()
    with page.context.expect_page() as report:
        page.get_by_role("link", name="Report of the night").click()
    report.value.frame_locator("iframe").get_by_text("Performance on the test part").wait_for(
        timeout=PAGE_LIMIT_MS
    )
    assert "Completed" in {run.state for run in latest_runs(prefect)}


def deidentify(page: Page, prefect: str, source: Path, destination: str) -> None:
    """Fill in the form of a de-identification."""
    open_form(page, prefect, "deidentify")
    row(page, "Source").locator("textarea").fill(str(source))
    row(page, "Destination").locator("textarea").fill(destination)


def test_a_folder_is_deidentified_from_the_page(
    page: Page, stack: Running, client: Settings, tmp_path: Path
) -> None:
    prefect, out = stack.record.addresses["prefect"], tmp_path / "out"
    deidentify(page, prefect, write_archive(tmp_path / "dicom", patients=2)[0], str(out))
    page.get_by_text("Run Name").locator("xpath=following::input[1]").fill("for-congress")
    run_id = submit(page)

    run = finished(prefect, run_id)

    assert run["state_type"] == "COMPLETED", log_of(prefect, run_id)
    assert run["name"] == "for-congress"
    assert "2 files listed, 2 to read" in log_of(prefect, run_id)
    of_run = {"key": {"any_": ["deidentify"]}, "flow_run_id": {"any_": [run_id]}}
    (artifact,) = answer_of(f"{prefect}/api/artifacts/filter", {"artifacts": of_run}) or [{}]
    assert "2 objects of 2 patients stand in it" in artifact["data"]
    assert f"Hand out `{out}/images` alone" in artifact["data"]
    assert len(list((out / "images").rglob("*.dcm"))) == 2


def test_part_of_a_path_is_refused_in_the_form(page: Page, stack: Running, tmp_path: Path) -> None:
    prefect = stack.record.addresses["prefect"]
    runs = {"flows": {"name": {"any_": ["deidentify"]}}}
    before = answer_of(f"{prefect}/api/flow_runs/count", runs)
    deidentify(page, prefect, tmp_path, "released")
    page.get_by_role("button", name="Submit").click()
    page.get_by_text("does not match").first.wait_for()
    assert answer_of(f"{prefect}/api/flow_runs/count", runs) == before


def fill_form(page: Page, archive: Path, labels: Path) -> None:
    row(page, "Source").locator("textarea").fill(str(archive))
    row(page, "Label table").locator("textarea").fill(str(labels))
    row(page, "Name").locator("textarea").fill(NAME)
    row(page, "Epochs").locator("input").fill("1")


def keep_screenshot(page: Page) -> None:
    """Keep a picture of the form for the README, filled with what a person would type."""
    if os.environ.get("RADLOOP_SCREENSHOTS") == "1":
        fill_form(page, Path("/archive/ct-chest"), Path("/archive/ct-chest/labels.csv"))
        page.set_viewport_size({"width": 1280, "height": 1900})
        page.get_by_text("Run Name").scroll_into_view_if_needed()
        page.screenshot(path=REPOSITORY / "docs" / "prefect-form.png")
