"""Questions that come together are answered together, and each is answered for itself."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from unittest.mock import patch

from eddy.serving import answering
from eddy.serving.answering import Answering
from eddy.serving.lists.answers import Answer
from eddy.serving.lists.questions import Question
from eddy.serving.metrics import ServerMetrics
from eddy.serving.recommend import answer
from eddy.serving.view import MaterialisedView
from eddy.serving.view_owner import ViewOwner

LONG_S = 60.0


def test_a_question_that_fails_takes_no_other_one_with_it() -> None:
    batches: list[int] = []

    def answers(view: MaterialisedView, questions: Sequence[Question]) -> list[Answer]:
        batches.append(len(questions))
        if any(question.user_id == "fails" for question in questions):
            raise IndexError
        return answer(view, questions)

    async def run() -> list[Answer | BaseException]:
        owner, view = ViewOwner(), MaterialisedView(lambda: 0)
        asked = Answering(view, owner, ServerMetrics(), LONG_S, lambda _: None)
        running = asyncio.create_task(asked.run())
        try:
            questions = [asked.ask(Question(user)) for user in ("anna", "fails", "bob")]
            return await asyncio.gather(*questions, return_exceptions=True)
        finally:
            running.cancel()
            asked.close()
            owner.close()

    with patch.object(answering, "answer", answers):
        anna, fails, bob = asyncio.run(run())
    assert isinstance(anna, Answer)
    assert isinstance(bob, Answer)
    assert (anna.user_id, bob.user_id) == ("anna", "bob")
    assert isinstance(fails, IndexError)
    assert batches == [3, 1, 1, 1]
