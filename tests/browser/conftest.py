"""The page in a real browser, before a real system; one of each for all tests."""

from __future__ import annotations

import os
import uuid
from collections.abc import Iterator
from pathlib import Path

import pytest
from playwright.sync_api import Browser, ConsoleMessage, Page, expect

from eddy.stream.records.settings import load_settings
from tests.browser.chromium import MISSING, chromium
from tests.browser.live_system import LiveSystem, live_system

SCREENSHOTS = "EDDY_SCREENSHOTS"
"""A folder for pictures of each view; without it none are taken."""

expect.set_options(timeout=20_000)


@pytest.fixture(scope="package")
def browser() -> Iterator[Browser]:
    with chromium() as started:
        if started is None:
            pytest.skip(MISSING)
        yield started


@pytest.fixture(scope="package")
def system(browser: Browser, broker: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[LiveSystem]:
    folder, name = tmp_path_factory.mktemp("page"), uuid.uuid4().hex[:8]
    settings = load_settings(
        bootstrap_servers=broker, topic_prefix=f"test-{name}.", group=f"test-{name}",
        registry=folder / "registry", partitions=2, session_timeout_s=6, metrics_port=0,
        prequential_sample=1, prequential_time=1,
    )  # fmt: skip
    with live_system(settings, folder) as one:
        yield one


class Visit:
    """A reader's visit with one key; what the browser complains about is noted."""

    def __init__(self, browser: Browser, system: LiveSystem, key: str | None, **context: object) -> None:
        self.context = browser.new_context(**context)  # type: ignore[arg-type]
        self.system = system
        self.complaints: list[str] = []
        self.requests: list[str] = []
        if key is not None:
            script = (
                f"sessionStorage.getItem('eddy-api-key') ?? sessionStorage.setItem('eddy-api-key', {key!r})"
            )
            self.context.add_init_script(script)
        self.page = self.context.new_page()
        self.page.on("console", self._note)
        self.page.on("pageerror", lambda error: self.complaints.append(str(error)))
        self.page.on("request", lambda request: self.requests.append(request.url))

    def _note(self, message: ConsoleMessage) -> None:
        # An answer that is an error is the page's to show; Chromium reports it by itself.
        if message.type in ("error", "warning") and "Failed to load resource" not in message.text:
            self.complaints.append(message.text)

    def open(self, view: str) -> Page:
        """Show a view by its address."""
        self.page.goto(f"{self.system.address}#/{view}")
        return self.page

    def close(self) -> None:
        """Errors: AssertionError when the browser complained, or was sent elsewhere."""
        self.context.close()
        assert self.complaints == []
        assert [url for url in self.requests if not url.startswith(self.system.address)] == []


@pytest.fixture
def visit(browser: Browser, system: LiveSystem) -> Iterator[Visit]:
    """A visit with a key that may write."""
    one = Visit(browser, system, system.write_key)
    yield one
    one.close()


@pytest.fixture(scope="session")
def screenshots() -> Path | None:
    """Where pictures are put."""
    if SCREENSHOTS not in os.environ:
        return None
    folder = Path(os.environ[SCREENSHOTS])
    folder.mkdir(parents=True, exist_ok=True)
    return folder
