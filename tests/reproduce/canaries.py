"""How often the watcher of canaries errs, and how soon it finds what is worse, on real users.

    python -m tests.reproduce.canaries [--stream FILE.parquet] [--deals 1000]

A version is trained on the first half of a stream and ranks the second half, beside decayed popularity. Then
the users are dealt to two equal versions again and again, and looks are taken as `eddy models watch` takes
them: every "worse" is a false alarm. With a part of its hits taken away, a canary has to be found worse.
Beside it stands an interval that ignores that it is looked at repeatedly. Writes results/canaries.json.
"""

import argparse
import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
from numpy.typing import NDArray

from eddy.demo.data import EVENTS_FILE
from eddy.models.config import configs
from eddy.models.evaluation.baselines import decayed_popularity
from eddy.models.evaluation.evaluate import DEFAULT_BATCH
from eddy.models.evaluation.judgement import Window, window_trial
from eddy.models.evaluation.metrics import gains
from eddy.models.evaluation.ranks import recommender_ranks
from eddy.models.evaluation.sequential import (
    ALLOWED_ERROR,
    LOOKS,
    GroupSums,
    SequentialTest,
    difference_interval,
)
from eddy.models.logs.events import Events, read_events
from eddy.models.registry import publish
from eddy.models.rules import EVERY_EVENT
from eddy.models.training.train import train
from eddy.refresh.windows import before
from eddy.stream.records.schema import GROUPS
from tests.reproduce.run import HERE

SETTINGS = ("hidden=64", "dim=64", "epochs=4", "learning_rate=5e-3", "dropout=0.2", "sampled=512")
SHARES = (0.1, 0.2, 0.5)
LOST = 0.2
"""So large a part of its hits has a canary that is worse."""


@dataclass(frozen=True)
class Ranked:
    """n ranked events in their order."""

    user: NDArray[np.int64]
    reciprocal: NDArray[np.float64]
    hit: NDArray[np.float64]
    popularity_reciprocal: NDArray[np.float64]
    popularity_hit: NDArray[np.float64]


def ranked(events: Events) -> Ranked:
    """The second half of a stream, ranked by a version of the first half and by decayed popularity."""
    window = Window(len(events) // 4, len(events) // 2)
    config, training = configs("gru", SETTINGS)
    trained = train(before(events, window.start), config, training, EVERY_EVENT)
    with TemporaryDirectory() as folder:
        version = publish(Path(folder), trained, {})
    trial = window_trial(events, window, EVERY_EVENT)
    ranks = recommender_ranks(
        trial, version.recommender, version.vocabulary, version.rules, DEFAULT_BATCH
    ).all
    popularity = decayed_popularity(window_trial(events, window, EVERY_EVENT, tuning=True)).ranks["all"]
    ours, theirs = gains(ranks), gains(popularity)
    _, user = np.unique(events.user[trial.judged], return_inverse=True)
    return Ranked(user, ours["mrr@20"], ours["recall@20"], theirs["mrr@20"], theirs["recall@20"])


def outcome(events: Ranked, seed: int, share: float, lost: float, corrected: bool) -> tuple[str, int]:
    """How a canary ends whose users, a share of all, were dealt by this seed; and after how many events.

    lost: the part of its hits that is taken away. corrected: as the watcher does; else with an interval that
    is right for a single look.
    """
    rng = np.random.default_rng(seed)
    users, n = int(events.user.max()) + 1, len(events.user)
    canary = (rng.random(users) < share)[events.user]
    group = rng.integers(0, GROUPS, users)[events.user]
    kept = ~(canary & (rng.random(n) < lost))
    columns = (
        np.ones(n), events.hit * kept + events.popularity_hit,
        events.reciprocal * kept - events.popularity_reciprocal,
    )  # fmt: skip
    # 1. Sums by look, version and group.
    ends = [round(look * n) for look in LOOKS]
    stage = np.searchsorted(ends, np.arange(n), side="right")
    cell = (stage * 2 + canary) * GROUPS + group
    shape = (len(LOOKS) + 1, 2, GROUPS)
    sums = [
        np.bincount(cell, column, int(np.prod(shape))).reshape(shape).cumsum(axis=0) for column in columns
    ]
    # 2. Look by look.
    test = SequentialTest()
    for look, passed in enumerate(LOOKS):
        live, tried = (GroupSums(*(column[look, version] for column in sums)) for version in (0, 1))
        found = test.look(passed, tried, live)
        name: str = found.outcome
        if not corrected and np.isfinite(found.low):
            _, low, high = difference_interval(tried, live, ALLOWED_ERROR)
            name = "worse" if high < 0 else "better" if low > 0 else "undecided"
        if name in ("worse", "better"):
            break
    return name, ends[look]


def study(events: Ranked, deals: int) -> list[dict[str, Any]]:
    """A row for each share: false alarms of equal versions, and how a worse one is found."""
    rows = []
    for share in SHARES:
        equal = [outcome(events, seed, share, 0.0, True)[0] for seed in range(deals)]
        naive = [outcome(events, seed, share, 0.0, False)[0] for seed in range(deals)]
        worse = [outcome(events, deals + seed, share, LOST, True) for seed in range(deals // 5)]
        taken = [after for name, after in worse if name == "worse"]
        rows.append(
            {
                "share": share,
                "false_alarms": equal.count("worse") / deals,
                "false_promotions": equal.count("better") / deals,
                "false_alarms_of_one_look_intervals": naive.count("worse") / deals,
                "worse_found": len(taken) / len(worse),
                "events_until_found": float(np.median(taken)) if taken else None,
            }
        )
        print(rows[-1], flush=True)
    return rows


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--stream", type=Path, default=EVENTS_FILE)
    parser.add_argument("--deals", type=int, default=1000)
    chosen = parser.parse_args(arguments)
    events = ranked(read_events(chosen.stream))
    about = {
        "stream": chosen.stream.stem, "deals": chosen.deals, "events": len(events.user),
        "users": int(events.user.max()) + 1, "mrr@20": float(events.reciprocal.mean()),
        "popularity_mrr@20": float(events.popularity_reciprocal.mean()),
    }  # fmt: skip
    print(about, flush=True)
    rows = study(events, chosen.deals)
    (HERE / "results" / "canaries.json").write_text(json.dumps({**about, "rows": rows}, indent=1) + "\n")


if __name__ == "__main__":
    main()
