"""How threads wait is chosen where nobody else has chosen it."""

import os

import pytest

from eddy.models.openmp import let_waiting_threads_sleep

pytestmark = pytest.mark.unit


def test_threads_sleep_soon(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("OMP_WAIT_POLICY", "GOMP_SPINCOUNT"):
        monkeypatch.delenv(name, raising=False)
    let_waiting_threads_sleep()
    assert os.environ["GOMP_SPINCOUNT"] == "1000"


@pytest.mark.parametrize(("name", "chosen"), [("OMP_WAIT_POLICY", "ACTIVE"), ("GOMP_SPINCOUNT", "7")])
def test_what_the_environment_says_stays(monkeypatch: pytest.MonkeyPatch, name: str, chosen: str) -> None:
    for each in ("OMP_WAIT_POLICY", "GOMP_SPINCOUNT"):
        monkeypatch.delenv(each, raising=False)
    monkeypatch.setenv(name, chosen)
    let_waiting_threads_sleep()
    assert os.environ[name] == chosen
    assert (name == "GOMP_SPINCOUNT") == ("GOMP_SPINCOUNT" in os.environ)
