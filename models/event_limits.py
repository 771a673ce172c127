"""What an event may hold: one rule, whether it comes from `events`, from a file or through `eddy ingest`, so
that what was accepted once can be used everywhere (rows, event log, training, replay).

| field | what is accepted |
| --- | --- |
| user_id, item_id | text of 1 to MAX_ID characters that UTF-8 can encode |
| timestamp | whole milliseconds since 1970, from EARLIEST_MS (a setting) on |
| event_type | text of up to MAX_TYPE characters; absent, null or empty: the default type |
| value | a finite number, taken as the nearest within ±MAX_VALUE; absent or null: none |
| event_id | text of up to MAX_ID characters; absent, null or empty: none |

What breaks the rule is refused with a reason. Nothing is changed, except that a value beyond ±MAX_VALUE
becomes that bound.
"""

MAX_ID = 1024
MAX_TYPE = 256

MAX_VALUE = 65_504.0
"""The greatest finite float16: rows keep values in this type. The event log keeps more digits of them, within
the same bounds.
"""

LATEST_MS = 10**14
"""The year 5138, as a bound against times that cannot be meant."""

EARLIEST_MS = 631_152_000_000
"""1 January 1990. An earlier time is taken for seconds where milliseconds are meant: today's seconds, read as
milliseconds, lie in January 1970.
"""
