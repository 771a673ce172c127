"""The parameters of a question that waits for what its asker has written."""

from typing import Annotated

from fastapi import HTTPException
from pydantic import BaseModel, ConfigDict, Field

from eddy.serving.event_writer import TOKEN, Position
from eddy.serving.service import Service
from eddy.stream.records.partitioner import partition_of

WAIT_MS = 1_000
MAX_WAIT_MS = 10_000


class Waiting(BaseModel):
    """What an answer should include, and how long it may wait for that."""

    model_config = ConfigDict(extra="forbid")

    wait_for: Annotated[
        str | None,
        Field(
            pattern=TOKEN,
            description="The record of `events` that the answer should include: `partition:offset`, as the "
            "answer to a posted event or an erasure gives it. `includes` in the answer says whether it does.",
        ),
    ] = None
    wait: Annotated[
        int | None,
        Field(
            ge=0,
            le=MAX_WAIT_MS,
            description=f"With `wait_for`: for so many ms at most; {WAIT_MS} unless given.",
        ),
    ] = None

    async def included(self, user_id: str, service: Service) -> bool | None:
        """Wait for the record; returns whether an answer about the user includes it now, None without one.

        Errors: HTTPException 409 for a record that cannot be the user's.
        """
        if self.wait_for is None:
            return None
        position = Position.of_token(self.wait_for)
        settings = service.settings
        (home,) = partition_of([user_id.encode()], settings.partitions, settings.partitioner).tolist()
        if position.partition != home:
            raise HTTPException(
                409,
                f"wait_for: partition {position.partition} has no records of this user, whose are in {home}",
            )
        within_s = (WAIT_MS if self.wait is None else self.wait) / 1000
        included = await service.read_your_writes.includes(user_id, position, within_s)
        if included:
            service.link_to_row(user_id)
        return included
