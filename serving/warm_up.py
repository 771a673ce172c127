"""Questions that are answered before the first caller's, who would wait for the compiler."""

from eddy.models.logs.events import DEFAULT_TYPE
from eddy.serving.lists.questions import Question, SessionEvent
from eddy.serving.recommend import answer
from eddy.serving.view import MaterialisedView


def warm_up(view: MaterialisedView) -> None:
    """Compile what answers need: ten seconds on a new machine, half a second where it is in the cache."""
    item = next((name for name in view.names.ids if name is not None), None)
    if item is None:
        return
    session = (SessionEvent(item, DEFAULT_TYPE, None, None),)
    answer(
        view,
        [
            Question("", k=2, exclude_seen=True, session=session),
            Question("", k=2, explain=True, diversity=0.5, max_per_category=1, explore=0.5, session=session),
            Question("", k=2),
        ],
    )
