"""A server beside a soak, and the questions that it is asked all the while."""

from __future__ import annotations

import os
import random
import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx

from eddy.stream.local_kafka.free_port import free_port
from eddy.stream.records.settings import Settings
from tests.support.waiting import eventually

HOST = "127.0.0.1"
QUESTIONS_PER_S = 200
ASKED_AT_ONCE = 16
K = 5
FORGOTTEN_S = 30.0
"""So long after an erasure the server may still know a user: a worker may be restarting meanwhile."""
END_S = 60.0
"""So long the server may take to end."""
SHOWN = 20
"""Wrong answers that are kept."""


@dataclass
class Server:
    """A running `eddy serve`."""

    process: subprocess.Popen[bytes]
    url: str

    def await_ready(self, within_s: float) -> None:
        """Wait until it answers."""

        def ready() -> bool:
            assert self.process.poll() is None, "the server has ended"
            try:
                return httpx.get(f"{self.url}/readyz", timeout=5).status_code == 200
            except httpx.HTTPError:
                return False

        eventually(ready, within_s, "the server ready")


@contextmanager
def new_server(settings: Settings, folder: Path) -> Iterator[Server]:
    """A server of this installation, with its output in the folder."""
    port = free_port(HOST)
    environment = {
        **os.environ,
        "EDDY_BOOTSTRAP_SERVERS": settings.bootstrap_servers or "",
        "EDDY_REGISTRY": str(settings.registry),
        "EDDY_TOPIC_PREFIX": settings.topic_prefix,
        "EDDY_GROUP": settings.group,
        "EDDY_PARTITIONS": str(settings.partitions),
        "EDDY_CACHE_DIR": str(folder / "cache-server"),
        "EDDY_PORT": str(port),
    }
    with (folder / "server.log").open("wb") as log:
        process = subprocess.Popen(
            [sys.executable, "-m", "eddy", "serve"], env=environment, stdout=log, stderr=log
        )
        try:
            yield Server(process, f"http://{HOST}:{port}")
        finally:
            process.terminate()
            try:
                process.wait(END_S)
            except subprocess.TimeoutExpired:
                process.kill()
                raise


class Asker(threading.Thread):
    """Asks for lists at a steady pace, and judges each answer."""

    def __init__(self, url: str, users: int, stop: threading.Event) -> None:
        super().__init__(name="asker", daemon=True)
        self._url, self._users, self._stopped = url, users, stop
        self._random = random.Random(1)
        self._gone: dict[str, float] = {}
        """when users who never come back were erased, in seconds of the monotonic clock"""
        self.statuses: Counter[int] = Counter()
        self.seconds: list[float] = []
        self.wrong: list[str] = []
        self.wrong_count = 0

    def forget(self, users: Iterable[bytes]) -> None:
        """These users were erased now, or before, and never come back."""
        self._gone |= {user.decode(): time.monotonic() for user in users if user.decode() not in self._gone}

    def run(self) -> None:
        limits = httpx.Limits(max_connections=ASKED_AT_ONCE)
        with httpx.Client(timeout=30, limits=limits) as client, ThreadPoolExecutor(ASKED_AT_ONCE) as pool:
            started, asked = time.monotonic(), 0
            while not self._stopped.wait(0.05):
                due = int((time.monotonic() - started) * QUESTIONS_PER_S) - asked
                users = [f"user-{self._random.randrange(self._users)}" for _ in range(due)]
                list(pool.map(lambda user: self._ask(client, user), users))
                asked += due

    def _ask(self, client: httpx.Client, user: str) -> None:
        began = time.monotonic()
        try:
            answer = client.get(f"{self._url}/v1/users/{user}/recommendations", params={"k": K})
        except httpx.HTTPError as error:
            self._note(f"{user}: {error!r}")
            return
        self.seconds.append(time.monotonic() - began)
        self.statuses[answer.status_code] += 1
        if answer.status_code == 503:  # refused in time, which is no wrong answer
            return
        if answer.status_code != 200:
            self._note(f"{user}: {answer.status_code} {answer.text[:200]}")
        elif problem := self._problem(user, answer.json(), began):
            self._note(f"{user}: {problem}")

    def _problem(self, user: str, answer: dict[str, Any], asked_at: float) -> str:
        """What is wrong with an answer; empty when nothing is."""
        items = [item["item_id"] for item in answer["items"]]
        scores = [item["score"] for item in answer["items"]]
        if answer["user_id"] != user:
            return f"the answer is about {answer['user_id']}"
        if len(items) > K or len(set(items)) < len(items):
            return f"not at most {K} different items: {items}"
        if answer["known"] and scores != sorted(scores, reverse=True):
            return f"not the best first: {scores}"
        if answer["known"] and asked_at - self._gone.get(user, asked_at) > FORGOTTEN_S:
            return "an erased user is known"
        return ""

    def _note(self, problem: str) -> None:
        self.wrong_count += 1
        if len(self.wrong) < SHOWN:
            self.wrong.append(problem)

    def summary(self) -> dict[str, Any]:
        """Answers by status, their times, and what was wrong."""
        ordered = sorted(self.seconds) or [0.0]
        return {
            "answers": {str(status): count for status, count in sorted(self.statuses.items())},
            "p50_ms": round(1000 * ordered[len(ordered) // 2], 1),
            "p99_ms": round(1000 * ordered[int(0.99 * (len(ordered) - 1))], 1),
            "wrong_count": self.wrong_count,
            "wrong": self.wrong,
        }
