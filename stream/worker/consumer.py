"""What a worker asks of its group's consumer."""

from typing import Protocol

from eddy.stream.worker.transport import Reading


class EventsConsumer(Protocol):
    """The consumer of `events`; partitions are numbers, positions are offsets."""

    def start_reading(self, number: int) -> None:
        """Hand out chunks of this partition from now on; after each rebalance none are at first."""

    def stop_reading(self, number: int) -> None:
        """Hand out no more chunks of this partition; what is dropped meanwhile is fetched again later."""

    async def commit(self, offsets: dict[int, int]) -> bool:
        """Commit offsets by partition; False while the group is rebalancing and refuses."""

    async def read_again(self, seeks: int) -> None:
        """Go back to the committed offsets, unless positions were set since they had been so often."""

    def reading(self, number: int) -> Reading | None:
        """How far a partition has been read; None while the consumer has no position."""

    def take_gone(self, number: int, start: int) -> int:
        """How many offsets were gone before they were read, now that the log starts there; told once."""
