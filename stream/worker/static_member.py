"""A worker's stable name (EDDY_WORKER_ID, KIP-345) belongs to the process that joined the group last.

aiokafka treats a member whose name another process has taken over like a member whose session has expired: it
joins again under the name, and so takes it back. The other process would do the same, without end and without
a message.
"""

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any

from aiokafka import AIOKafkaConsumer
from aiokafka.errors import BrokerResponseError, KafkaError, kafka_errors
from aiokafka.protocol.group import JoinGroupRequest
from kafka.errors import KafkaError as ClientError

from eddy.models.errors import EddyError
from eddy.stream.kafka.clients import admin_client
from eddy.stream.records.settings import Settings
from eddy.stream.worker.joining import once_started

_RETRY_S = 1.0


class FencedInstanceIdError(BrokerResponseError):  # type: ignore[misc]
    """The broker's answer to a member that joins while another one joins under the same name. aiokafka does
    not know this error.
    """

    errno = 82
    message = "FENCED_INSTANCE_ID"
    description = "another member of the group has the same group.instance.id"


kafka_errors.setdefault(FencedInstanceIdError.errno, FencedInstanceIdError)


class NameTaken(EddyError):
    """Another process uses this worker's name."""

    def __init__(self, settings: Settings) -> None:
        super().__init__(
            f"EDDY_WORKER_ID={settings.worker_id} is also the name of a worker that joined the group "
            f"{settings.group} later and took the partitions over: this one ends; give every worker a name "
            "of its own"
        )


def name_is_taken(settings: Settings, member_id: str) -> bool:
    """Whether the group has a member with this worker's name that is not `member_id`. Errors: those of
    kafka-python, and EddyError, when the cluster does not answer.
    """
    with admin_client(settings) as admin:
        members = admin.describe_groups([settings.group])[settings.group]["members"]
    return any(
        member["group_instance_id"] == settings.worker_id and member["member_id"] != member_id
        for member in members
    )


def keep_out_of_the_way(
    consumer: AIOKafkaConsumer, taken: Callable[[str], bool], on_taken: Callable[[], None]
) -> None:
    """Make a consumer that has lost its membership ask whether another member has taken its name, before it
    joins again. `taken` is called with the id of the member that it was, on a thread of its own. If it
    returns True, `on_taken` is called, and the consumer does not join any more.
    """

    def guard(coordinator: Any) -> None:
        coordinator.ensure_active_group = _guarded(coordinator, taken, on_taken)

    once_started(consumer, guard)


def _guarded(
    coordinator: Any, taken: Callable[[str], bool], on_taken: Callable[[], None]
) -> Callable[[Any, Any], Awaitable[Any]]:
    join = coordinator.ensure_active_group
    member_id: str = JoinGroupRequest.UNKNOWN_MEMBER_ID

    async def step_aside() -> None:
        on_taken()
        await asyncio.wait([coordinator._closing])

    async def ensure_active_group(subscription: Any, previous: Any) -> Any:
        nonlocal member_id
        if coordinator.member_id == JoinGroupRequest.UNKNOWN_MEMBER_ID != member_id:
            try:
                if await asyncio.to_thread(taken, member_id):
                    return await step_aside()
            except (ClientError, EddyError):  # the coordinator's loop tries again
                await asyncio.sleep(_RETRY_S)
                return None
            # Do not ask again before it is a member: the answer that made it one may have been lost.
            member_id = JoinGroupRequest.UNKNOWN_MEMBER_ID
        try:
            assignment = await join(subscription, previous)
        except KafkaError as error:
            if FencedInstanceIdError.__name__ not in str(error):
                raise
            return await step_aside()
        member_id = coordinator.member_id
        return assignment

    return ensure_active_group
