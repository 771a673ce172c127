"""A refresh begins when the live version has got worse for good, and not for noise."""

import numpy as np
import pytest
from kafka.errors import KafkaTimeoutError

from eddy.refresh import drift
from eddy.refresh.drift import DriftDetector, DriftWatch
from eddy.stream.kafka.security.connecting import Refused
from eddy.stream.records.rank_counts import SUMS, RankedBy, Told
from eddy.stream.records.schema import GROUPS
from eddy.stream.records.settings import load_settings

pytestmark = pytest.mark.unit


def told(interval: int, mrr: float, rng: np.random.Generator, epoch: int = 1, events: int = 320) -> Told:
    """What a worker tells of events whose reciprocal ranks are 1 or 0, with this mean."""
    sums = np.zeros((len(SUMS), GROUPS))
    of_group = rng.multinomial(events, np.full(GROUPS, 1 / GROUPS))
    sums[SUMS.index("events")] = of_group
    sums[SUMS.index("recall")] = sums[SUMS.index("reciprocal")] = rng.binomial(of_group, mrr)
    return Told("0" * 32, interval, {RankedBy(epoch, "v000001-1a2b3c4d"): sums})


def alarms(mrr: list[float], seed: int, epoch_of: list[int] | None = None) -> list[tuple[int, str]]:
    detector, rng = DriftDetector(), np.random.default_rng(seed)
    epochs = epoch_of or [1] * len(mrr)
    found = []
    for interval, (value, epoch) in enumerate(zip(mrr, epochs, strict=True)):
        if (reason := detector.take(told(interval, value, rng, epoch))) is not None:
            found.append((interval, reason))
    return found


def test_noise_alone_is_no_drift() -> None:
    assert sum(len(alarms([0.2] * 100, seed)) for seed in range(10)) <= 1


def test_a_loss_that_rises_is_noticed_soon() -> None:
    for seed in range(5):
        found = alarms([0.25] * 60 + [0.15] * 60, seed)
        assert found
        interval, reason = found[0]
        assert 60 <= interval < 80
        assert reason.startswith("MRR@20 of what is live fell from 0.2")


def test_a_loss_that_falls_asks_for_nothing() -> None:
    assert alarms([0.15] * 60 + [0.25] * 60, seed=1) == []


def test_another_version_begins_anew() -> None:
    assert alarms([0.25] * 60 + [0.15] * 60, seed=1, epoch_of=[1] * 60 + [2] * 60) == []
    # What a worker still tells of the epoch before does not count.
    late = [1, 2] * 60
    assert alarms([0.25, 0.15] * 60, seed=1, epoch_of=late) == []


class Ended(BaseException):
    """As Ctrl-C."""


@pytest.mark.parametrize("failure", [Refused("the token has expired"), KafkaTimeoutError(), OSError()])
def test_a_cluster_that_is_away_or_lets_nobody_in_does_not_end_the_wait(
    monkeypatch: pytest.MonkeyPatch, failure: Exception
) -> None:
    looks: list[int] = []

    def refuse(*_: object) -> None:
        looks.append(1)
        raise failure

    def sleep(_: float) -> None:
        if len(looks) == 3:
            raise Ended

    monkeypatch.setattr(drift, "RankReader", refuse)
    with pytest.raises(Ended):
        DriftWatch(load_settings(), print, sleep).wait(3_600)
