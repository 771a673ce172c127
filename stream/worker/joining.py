"""What a worker ends for when it joins its group. aiokafka tells of such an error only to whoever asks for
records, which Faust does not do before it has partitions: the worker would wait without end or message, also
when the reason is long gone.
"""

from collections.abc import Callable
from typing import Any

from aiokafka import AIOKafkaConsumer
from aiokafka.errors import InconsistentGroupProtocolError, InvalidSessionTimeoutError, KafkaError

from eddy.models.errors import EddyError
from eddy.stream.records.settings import Settings


class NotAdmitted(EddyError):
    """The group does not take this worker as a member."""


def why_not_admitted(error: KafkaError, settings: Settings) -> NotAdmitted | None:
    """What the operator has to change; None for an error that passes, or that others tell of."""
    match error:
        case InconsistentGroupProtocolError():
            return NotAdmitted(
                f"the consumer group {settings.group} has members that are no Eddy workers: end these "
                "consumers, or give this installation an EDDY_GROUP of its own"
            )
        case InvalidSessionTimeoutError():
            return NotAdmitted(
                f"EDDY_SESSION_TIMEOUT_S={settings.session_timeout_s:g} is not what the cluster allows: give "
                "one within its group.min.session.timeout.ms and group.max.session.timeout.ms"
            )
    return None


def once_started(consumer: AIOKafkaConsumer, prepare: Callable[[Any], None]) -> None:
    """Have `prepare` called with the coordinator that the consumer makes when it starts."""
    start = consumer.start

    async def start_and_prepare() -> None:
        await start()
        prepare(consumer._coordinator)

    consumer.start = start_and_prepare


def tell_of_refusals(
    consumer: AIOKafkaConsumer, settings: Settings, on_refused: Callable[[NotAdmitted], None]
) -> None:
    """Have `on_refused` called when the group does not take the consumer as a member."""

    def listen(coordinator: Any) -> None:
        tell = coordinator._push_error_to_user

        def tell_both(error: KafkaError) -> Any:
            if reason := why_not_admitted(error, settings):
                on_refused(reason)
            return tell(error)

        coordinator._push_error_to_user = tell_both

    once_started(consumer, listen)
