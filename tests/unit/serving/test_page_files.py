"""The files of the live page as HTTP carries them."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import cast

import httpx
import pytest

from eddy.serving.app import new_app
from eddy.serving.service import Service
from eddy.stream.records.settings import Settings, load_settings
from tests.support.recorded_service import RecordedService


def ask(
    path: str, settings: Settings | None = None, headers: dict[str, str] | None = None, root_path: str = ""
) -> httpx.Response:
    """The answer to a GET."""

    async def answered() -> httpx.Response:
        app = new_app(cast(Service, RecordedService(settings or load_settings())))
        transport = httpx.ASGITransport(app, root_path=root_path)
        async with httpx.AsyncClient(transport=transport, base_url="http://eddy") as client:
            return await client.get(root_path + path, headers=headers)

    return asyncio.run(answered())


@pytest.mark.parametrize("root_path", ["", "/eddy"])
def test_the_page_is_at_the_root_and_among_its_files(root_path: str) -> None:
    page, file = (ask(path, root_path=root_path) for path in ("/", "/page/index.html"))
    assert (page.status_code, file.status_code) == (200, 200)
    assert page.content == file.content
    assert page.headers["content-type"] == "text/html; charset=utf-8"


def test_the_page_may_load_and_ask_nothing_but_its_own_server() -> None:
    for path in ("/", "/page/index.html"):
        policy = ask(path).headers["content-security-policy"]
        assert "default-src 'none'" in policy
        assert "unsafe" not in policy
        assert "frame-ancestors 'none'" in policy


def test_a_file_that_has_not_changed_is_not_sent_again() -> None:
    etag = ask("/").headers["etag"]
    again = ask("/", headers={"If-None-Match": etag})
    assert (again.status_code, again.content) == (304, b"")
    assert again.headers["cache-control"] == "no-cache"


@pytest.mark.parametrize(
    "path",
    ["/page/%2e%2e/files.py", "/page/..%2ffiles.py", "/page/..%5cfiles.py", "/page//etc/passwd",
     "/page/", "/page/nothing.js", "/page/%00", "/page/" + "a" * 5000],
)  # fmt: skip
def test_nothing_but_the_page_s_files_can_be_had(path: str) -> None:
    assert ask(path).status_code == 404


def test_without_the_page_there_is_nothing_at_its_paths() -> None:
    settings = load_settings(page=False)
    assert [ask(path, settings).status_code for path in ("/", "/page/index.html")] == [404, 404]


def test_the_page_s_files_need_no_key(tmp_path: Path) -> None:
    file = tmp_path / "keys"
    file.write_text("")
    settings = load_settings(api_keys_file=file)
    assert [ask(path, settings).status_code for path in ("/", "/page/index.html")] == [200, 200]
    assert ask("/v1/popular", settings).status_code == 401
