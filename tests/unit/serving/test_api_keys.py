"""Who may ask, and for what: keys of a file, on every route of the API."""

from __future__ import annotations

import asyncio
import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, cast

import httpx
import pytest
from fastapi import FastAPI

from eddy.models.errors import EddyError
from eddy.serving.api_keys import LOOK_EVERY_S, SCOPES, ApiKey, ApiKeys, new_key
from eddy.serving.app import new_app
from eddy.serving.authentication import OPEN_PATHS
from eddy.serving.service import Service
from eddy.stream.records.settings import load_settings
from tests.support.recorded_service import RecordedService

KEYS = {scope: new_key(f"{scope}-only", [scope]) for scope in SCOPES}


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "keys"
    path.write_text("# name, SHA-256, scopes\n\n" + "\n".join(line for _, line in KEYS.values()) + "\n")
    return path


@pytest.fixture
def app(file: Path) -> FastAPI:
    service = RecordedService(load_settings(api_keys_file=file))
    return new_app(cast(Service, service))


def status(app: FastAPI, method: str, path: str, headers: Mapping[str, str] | None = None) -> int:
    async def asked() -> int:
        transport = httpx.ASGITransport(app, raise_app_exceptions=False)
        async with httpx.AsyncClient(transport=transport, base_url="http://eddy") as client:
            return (await client.request(method, path, headers=headers)).status_code

    return asyncio.run(asked())


def described_routes(app: FastAPI) -> Iterator[tuple[str, str, dict[str, Any]]]:
    """Each route's method, a path of it, and its description."""
    for template, operations in app.openapi()["paths"].items():
        for method, operation in operations.items():
            yield method.upper(), re.sub(r"\{[^}]*\}", "x", template), operation


def test_every_route_but_those_of_operators_needs_one_scope(app: FastAPI) -> None:
    for method, path, operation in described_routes(app):
        if path in OPEN_PATHS:
            assert "security" not in operation
            continue
        needed = operation["security"]
        assert {name for way in needed for name in way} == {"ApiKey", "Bearer"}, (method, path)
        assert all(len(scopes) == 1 for way in needed for scopes in way.values()), (method, path)


def test_every_route_refuses_who_has_no_key_a_wrong_one_or_one_of_another_scope(app: FastAPI) -> None:
    for method, path, operation in described_routes(app):
        if path in OPEN_PATHS:
            assert status(app, method, path) != 401
            continue
        scope = operation["security"][0]["ApiKey"][0]
        assert status(app, method, path) == 401, (method, path)
        assert status(app, method, path, {"X-API-Key": "eddy_wrong"}) == 401, (method, path)
        assert status(app, method, path, {"Authorization": "Basic eDp5"}) == 401, (method, path)
        for other in set(SCOPES) - {scope}:
            assert status(app, method, path, {"X-API-Key": KEYS[other][0]}) == 403, (method, path)
        for headers in ({"X-API-Key": KEYS[scope][0]}, {"Authorization": f"Bearer {KEYS[scope][0]}"}):
            assert status(app, method, path, headers) not in (401, 403), (method, path)


def test_a_login_that_is_meant_for_a_proxy_does_not_hide_the_key(app: FastAPI) -> None:
    headers = {"Authorization": "Basic eDp5", "X-API-Key": KEYS["read"][0]}
    assert status(app, "GET", "/v1/users/u/recommendations", headers) == 200


def test_what_does_not_exist_is_refused_without_a_key_too(app: FastAPI) -> None:
    assert status(app, "GET", "/v1/nothing") == 401
    assert status(app, "GET", "/docs/../v1/users/u/recommendations") == 401
    assert status(app, "GET", "/v1/nothing", {"X-API-Key": KEYS["read"][0]}) == 404


def test_where_a_page_cannot_set_headers_the_key_may_be_in_the_query(app: FastAPI) -> None:
    key = KEYS["write"][0]
    assert status(app, "GET", f"/v1/pixel?api_key={key}") not in (401, 403)
    assert status(app, "GET", "/v1/pixel?api_key=wrong") == 401
    assert status(app, "GET", "/v1/pixel?api_key=%ED%9F%BF&item_id=%FF") == 401
    assert status(app, "GET", f"/v1/users/u/recommendations?api_key={KEYS['read'][0]}") == 401


def test_without_a_file_of_keys_nobody_is_asked_and_the_description_says_so() -> None:
    open_app = new_app(cast(Service, RecordedService(load_settings())))
    assert status(open_app, "GET", "/v1/users/u/recommendations") == 200
    assert "securitySchemes" not in open_app.openapi()["components"]
    assert all("security" not in operation for _, _, operation in described_routes(open_app))


def test_keys_are_exchanged_while_the_server_runs(file: Path) -> None:
    now = [0.0]
    keys = ApiKeys(file, lambda: now[0])
    old, (new, line) = KEYS["read"][0], new_key("next", ["read", "erase"])
    assert keys.find(old.encode()) == ApiKey("read-only", frozenset({"read"}))
    replacement = file.with_suffix(".new")
    replacement.write_text(line)
    replacement.replace(file)
    now[0] += LOOK_EVERY_S
    assert keys.find(old.encode()) is None
    assert keys.find(new.encode()) == ApiKey("next", frozenset({"read", "erase"}))


def test_a_file_that_becomes_unusable_leaves_the_keys_from_before(file: Path) -> None:
    now = [0.0]
    keys = ApiKeys(file, lambda: now[0])
    before = file.read_text()
    for broken in ("no line of keys at all", None):
        if broken is None:
            file.unlink()
        else:
            file.write_text(broken)
        now[0] += LOOK_EVERY_S
        assert keys.find(KEYS["read"][0].encode()) is not None
        assert keys.problem is not None
    file.write_text(before)
    now[0] += LOOK_EVERY_S
    assert keys.find(KEYS["read"][0].encode()) is not None
    assert keys.problem is None


@pytest.mark.parametrize(
    ("line", "why"),
    [
        ("shop secret-key", "line 1: give NAME SHA256 SCOPES"),
        ("shop secret-key read", "line 1: the second part is the key's SHA-256"),
        (f"shop {'0' * 64} read,admin", "there is no scope 'admin'"),
        (f"sh/op {'0' * 64} read", "a name has"),
    ],
)
def test_a_wrong_line_is_named_without_showing_it(tmp_path: Path, line: str, why: str) -> None:
    (tmp_path / "keys").write_text(line)
    with pytest.raises(EddyError, match=re.escape(why)) as refused:
        ApiKeys(tmp_path / "keys")
    assert "secret-key" not in str(refused.value)
    assert str(tmp_path) in str(refused.value)


def test_a_missing_file_is_one_line_that_names_the_setting(tmp_path: Path) -> None:
    with pytest.raises(EddyError, match="EDDY_API_KEYS_FILE"):
        ApiKeys(tmp_path / "nothing")
