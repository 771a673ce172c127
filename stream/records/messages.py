"""A Kafka message that is to be written."""

Message = tuple[bytes | None, bytes | None]
"""(key, value); no value is a tombstone."""
