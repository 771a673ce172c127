"""Two versions side by side, on events that neither was trained on."""

from collections.abc import Callable

from eddy.models.evaluation.judgement import METRIC, Judgement, judge_candidate
from eddy.models.evaluation.protocols import Mode
from eddy.models.logs.events import Events
from eddy.models.registry import Version
from eddy.models.rules import EventRules
from eddy.refresh.windows import times_to_judge, window_at


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
    times = times_to_judge(events, (first, second), 1.0, rules, mode)
    return judge_candidate(events, window_at(events, times), second, first, rules, mode, progress, metric)
