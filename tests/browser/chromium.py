"""A real Chromium: the system's, or the one that Playwright has installed."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from playwright.sync_api import Browser, sync_playwright

CHROMIUM = "EDDY_CHROMIUM"
"""Names the browser where it is not found by itself."""

_NAMES = ("chromium", "chromium-browser", "google-chrome-stable", "google-chrome", "chrome")

MISSING = (
    f"there is no Chromium: install one (`apt-get install chromium`), or name it in {CHROMIUM}; "
    "`playwright install chromium` does as well"
)


@contextmanager
def chromium() -> Iterator[Browser | None]:
    """Yields a running browser without a window; None where there is no Chromium."""
    with sync_playwright() as playwright:
        path = _path(Path(playwright.chromium.executable_path))
        if path is None:
            yield None
            return
        # Chromium's own sandbox does not start for root; what it sees are this project's pages only.
        browser = playwright.chromium.launch(executable_path=path, chromium_sandbox=os.geteuid() != 0)
        yield browser
        browser.close()


def _path(bundled: Path) -> str | None:
    named = os.environ.get(CHROMIUM)
    if named:
        return named
    found = next(filter(None, map(shutil.which, _NAMES)), None)
    return found or (str(bundled) if bundled.exists() else None)
