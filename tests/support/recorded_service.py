"""A service behind the HTTP API that follows nothing."""

from __future__ import annotations

from eddy.serving.lists.answers import Answer
from eddy.serving.lists.questions import Question
from eddy.serving.metrics import ServerMetrics
from eddy.stream.records.settings import Settings, load_settings


class RecordedService:
    """Answers with empty lists, and remembers what it was asked last."""

    def __init__(self, settings: Settings | None = None) -> None:
        self.metrics = ServerMetrics()
        self.settings = settings or load_settings(k=7, exclude_seen=True)
        self.question: Question | None = None
        self.ending = False

    async def recommend(self, question: Question) -> Answer:
        """An empty list. Errors: ZeroDivisionError for the user "fails"."""
        if question.user_id == "fails":
            raise ZeroDivisionError("a secret")
        self.question = question
        return Answer(question.user_id, False, [], -1)

    def is_overloaded(self) -> bool:
        """There is always time."""
        return False

    def not_ready(self) -> list[str]:
        """Nothing is missing."""
        return []

    def problems(self) -> list[str]:
        """Nothing is unreadable."""
        return []
