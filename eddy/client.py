"""A client of the HTTP API, for applications: `pip install 'eddy-streams[client]'`.

    with Client("http://127.0.0.1:8000", api_key=key) as eddy:
        for item in eddy.recommendations("anna", k=10).items:
            ...

`AsyncClient` is the same with `async with` and `await`. Both keep connections, and ask again, after the pause
that the server names, when it refuses with 429 or 503 or cannot be reached. This file needs nothing else of
Eddy: it can be copied.
"""

import asyncio
import random
import time
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, fields
from typing import Any, Self, TypeVar
from urllib.parse import quote
from uuid import uuid4

import httpx

RETRIED = frozenset((429, 503))
"""Statuses of requests that may be sent again: the server has not begun to work on them, or Kafka has not
acknowledged their events, which have ids by which Eddy knows them again.
"""

MAX_PAUSE_S = 30.0

T = TypeVar("T")

Outcome = httpx.Response | httpx.TransportError
"""What an attempt ends with."""


class EddyHttpError(Exception):
    """The server refused or failed: `status`, why in `detail`, and the `request_id` of the server's log."""

    def __init__(self, status: int, detail: str, request_id: str | None) -> None:
        super().__init__(f"{status}: {detail}")
        self.status = status
        self.detail = detail
        self.request_id = request_id


@dataclass(frozen=True)
class Item:
    """An item of a list."""

    item_id: str
    score: float
    title: str | None = None


@dataclass(frozen=True)
class Recommendations:
    """A list, best first. `known` is false before the first event of a user, who gets what is popular."""

    user_id: str
    known: bool
    items: list[Item]
    stream_time: int
    epoch: int | None = None
    version: str | None = None
    partition: int | None = None
    offset: int | None = None
    includes: bool | None = None
    """whether the event that `wait_for` names is included; None without it"""


@dataclass(frozen=True)
class Accepted:
    """An event that Kafka has. `wait_for` goes into a later question whose answer should include it."""

    index: int
    partition: int
    offset: int
    wait_for: str


@dataclass(frozen=True)
class Refused:
    """An event that was not taken. status: 400, `reason` says why it is no event; 503: send it again."""

    index: int
    status: int
    reason: str


@dataclass(frozen=True)
class EventsOutcome:
    """What became of the events of a request, by their index."""

    accepted: list[Accepted]
    refused: list[Refused]


class _Api:
    """What both clients say and understand."""

    def __init__(self, api_key: str | None, retries: int) -> None:
        self._headers = {"X-API-Key": api_key} if api_key else {}
        self._retries = retries

    @staticmethod
    def _list_request(
        user_id: str,
        k: int | None,
        exclude_seen: bool | None,
        exclude: Iterable[str],
        more: Mapping[str, Any],
    ) -> tuple[str, dict[str, Any]]:
        wanted = {"k": k, "exclude_seen": exclude_seen, "exclude": list(exclude) or None, **more}
        body = {name: value for name, value in wanted.items() if value is not None}
        return f"{_path_of(user_id)}/recommendations", body

    @staticmethod
    def _list_of(answer: dict[str, Any]) -> Recommendations:
        items = [_known(Item, item) for item in answer["items"]]
        return _known(Recommendations, {**answer, "items": items})

    @staticmethod
    def _events(events: Iterable[Mapping[str, Any]]) -> dict[str, Any]:
        """Each with an id of its own, by which Eddy knows an event that is sent again."""
        return {"events": [{"event_id": uuid4().hex, **event} for event in events]}

    @staticmethod
    def _outcome_of(answer: dict[str, Any]) -> EventsOutcome:
        accepted = [_known(Accepted, event) for event in answer["accepted"]]
        return EventsOutcome(accepted, [_known(Refused, event) for event in answer["refused"]])

    def _pause_s(self, attempts: int, outcome: Outcome) -> float | None:
        """How long to wait before the next attempt; None when the outcome of the last one stands."""
        response = outcome if isinstance(outcome, httpx.Response) else None
        if attempts > self._retries or (response is not None and response.status_code not in RETRIED):
            return None
        named = response.headers.get("Retry-After", "") if response is not None else ""
        least = float(named) if named.isdecimal() else 0.1 * 2 ** (attempts - 1)
        return min(least * random.uniform(1, 1.5), MAX_PAUSE_S)  # not all clients at once

    @staticmethod
    def _understood(outcome: Outcome) -> Any:
        """The answer as Python values. Errors: EddyHttpError, and the outcome itself if it is an error."""
        if isinstance(outcome, httpx.TransportError):
            raise outcome
        response = outcome
        if response.is_success:
            return response.json() if response.content else None
        try:
            detail = str(response.json()["detail"])
        except (ValueError, KeyError, TypeError):
            detail = response.reason_phrase
        raise EddyHttpError(response.status_code, detail, response.headers.get("X-Request-ID"))


class Client(_Api):
    """See the module. `timeout` is in seconds, for each attempt."""

    def __init__(
        self, base_url: str, *, api_key: str | None = None, timeout: float = 5.0, retries: int = 3
    ) -> None:
        super().__init__(api_key, retries)
        self._http = httpx.Client(base_url=base_url, timeout=timeout, headers=self._headers)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *error: object) -> None:
        self.close()

    def close(self) -> None:
        """Close the connections."""
        self._http.close()

    def recommendations(
        self,
        user_id: str,
        *,
        k: int | None = None,
        exclude_seen: bool | None = None,
        exclude: Iterable[str] = (),
        **more: Any,
    ) -> Recommendations:
        """What next for a user. `more` are further parameters of the route.

        Errors: EddyHttpError, and httpx.TransportError when the server cannot be reached.
        """
        path, body = self._list_request(user_id, k, exclude_seen, exclude, more)
        return self._list_of(self.request("POST", path, body))

    def send_events(self, events: Iterable[Mapping[str, Any]]) -> EventsOutcome:
        """Write events: `user_id`, `item_id` and, if you have them, `timestamp` (ms), `event_type`, `value`,
        `event_id`. Errors: as `recommendations`; EddyHttpError 400 when none of them is an event.
        """
        return self._outcome_of(self.request("POST", "/v1/events", self._events(events)))

    def erase(self, user_id: str) -> dict[str, Any]:
        """Forget a user; the answer says by when nothing of them is left. Errors: as `recommendations`."""
        answer: dict[str, Any] = self.request("DELETE", _path_of(user_id))
        return answer

    def request(self, method: str, path: str, body: Any = None) -> Any:
        """Any request of the API, with its answer as Python values. Since it may be sent again, events in it
        need an `event_id`. Errors: as `recommendations`.
        """
        attempts, outcome = 1, self._attempt(method, path, body)
        while (pause := self._pause_s(attempts, outcome)) is not None:
            time.sleep(pause)
            attempts, outcome = attempts + 1, self._attempt(method, path, body)
        return self._understood(outcome)

    def _attempt(self, method: str, path: str, body: Any) -> Outcome:
        try:
            return self._http.request(method, path, json=body)
        except httpx.TransportError as error:
            return error


class AsyncClient(_Api):
    """See the module. `timeout` is in seconds, for each attempt."""

    def __init__(
        self, base_url: str, *, api_key: str | None = None, timeout: float = 5.0, retries: int = 3
    ) -> None:
        super().__init__(api_key, retries)
        self._http = httpx.AsyncClient(base_url=base_url, timeout=timeout, headers=self._headers)

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *error: object) -> None:
        await self.close()

    async def close(self) -> None:
        """Close the connections."""
        await self._http.aclose()

    async def recommendations(
        self,
        user_id: str,
        *,
        k: int | None = None,
        exclude_seen: bool | None = None,
        exclude: Iterable[str] = (),
        **more: Any,
    ) -> Recommendations:
        """As `Client.recommendations`."""
        path, body = self._list_request(user_id, k, exclude_seen, exclude, more)
        return self._list_of(await self.request("POST", path, body))

    async def send_events(self, events: Iterable[Mapping[str, Any]]) -> EventsOutcome:
        """As `Client.send_events`."""
        return self._outcome_of(await self.request("POST", "/v1/events", self._events(events)))

    async def erase(self, user_id: str) -> dict[str, Any]:
        """As `Client.erase`."""
        answer: dict[str, Any] = await self.request("DELETE", _path_of(user_id))
        return answer

    async def request(self, method: str, path: str, body: Any = None) -> Any:
        """As `Client.request`."""
        attempts, outcome = 1, await self._attempt(method, path, body)
        while (pause := self._pause_s(attempts, outcome)) is not None:
            await asyncio.sleep(pause)
            attempts, outcome = attempts + 1, await self._attempt(method, path, body)
        return self._understood(outcome)

    async def _attempt(self, method: str, path: str, body: Any) -> Outcome:
        try:
            return await self._http.request(method, path, json=body)
        except httpx.TransportError as error:
            return error


def _path_of(user_id: str) -> str:
    """The path of a user. In a URL "." and ".." mean folders, unless their dots are encoded; a proxy that
    resolves those, too, leads to another route, which refuses the request.
    """
    quoted = quote(user_id, safe="")
    return f"/v1/users/{quoted.replace('.', '%2E') if quoted in ('.', '..') else quoted}"


def _known(type_: type[T], values: Mapping[str, Any]) -> T:
    """A dataclass from the values that it knows: a newer server may say more."""
    return type_(**{field.name: values[field.name] for field in fields(type_) if field.name in values})  # type: ignore[arg-type]
