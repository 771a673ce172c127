"""Two versions side by side, on events that neither was trained on."""

from collections.abc import Callable

from eddy.models.evaluation.judgement import LEAST_TARGETS, METRIC, Judgement, judge_candidate, window_trial
from eddy.models.evaluation.protocols import Mode
from eddy.models.logs.events import Events
from eddy.models.registry import Version
from eddy.models.rules import EventRules
from eddy.models.training.warm_start import unseen_row
from eddy.refresh.refresh import NotYet
from eddy.refresh.windows import times_of, window_at


def compare_versions(
    events: Events,
    first: Version,
    second: Version,
    rules: EventRules,
    mode: Mode = "all",
    metric: str = METRIC,
    progress: Callable[[int, int], None] = lambda done, of: None,
) -> Judgement:
    """Judge the second version as a candidate beside the first, as a refresh does, on the last events that
    neither has seen.

    Errors: NotYet when these are too few; EddyError when it is not known which they are.
    """
    unseen = max(unseen_row(events, version) for version in (first, second))
    if len(events) - unseen >= LEAST_TARGETS:
        times = times_of(events, unseen, 1.0)
        window = window_at(events, times.tuning_ms, times.since_ms)
        targets = int(window_trial(events, window, rules).in_mode(mode).sum())
        if targets >= LEAST_TARGETS:
            return judge_candidate(events, window, second, first, rules, mode, progress, metric)
    raise NotYet(
        f"{events.source}: {len(events) - unseen:,} events since {first.id} and {second.id} were trained are "
        f"too few to compare them on; it takes {LEAST_TARGETS} targets"
    )
