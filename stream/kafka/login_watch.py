"""Whether the cluster still lets a running process in.

aiokafka connects again and again, and tells nobody that a login is refused or that there is no token for it:
the process stands still as in an outage. Therefore whoever runs for long asks the cluster something every few
seconds, and looks for the reason where no answer comes.
"""

import logging
import time

from kafka import KafkaAdminClient
from kafka.errors import KafkaError

from eddy.models.errors import EddyError
from eddy.stream.kafka.clients import connected_admin
from eddy.stream.kafka.security.connecting import Refused, reason_of_failure
from eddy.stream.kafka.security.tokens import NoToken
from eddy.stream.records.settings import Settings

log = logging.getLogger("eddy.kafka")

_ENDING = "ending, to be restarted by a supervisor"


class LoginWatch:
    """Call `look` every few seconds, from one thread at a time."""

    def __init__(self, settings: Settings, limit_s: float | None = None) -> None:
        """limit_s: after so long without a login the process is to end; None: never."""
        self._settings, self._limit_s = settings, limit_s
        self._admin: KafkaAdminClient | None = None
        self._since: float | None = None
        self.problem: str | None = None
        """why the cluster does not let this process in; None while it does, or does not answer at all"""

    def look(self) -> None:
        """Log the reason when it begins and when it changes. Errors: EddyError with the reason when the limit
        is exceeded. No answer from the cluster is no error.
        """
        try:
            if self._admin is None:
                self._admin = connected_admin(self._settings)
            self._admin.describe_topics([self._settings.topics.events])
        except (KafkaError, OSError):
            self.close()
            self._take(reason_of_failure(self._settings))
        else:
            self._take(None)

    def behind(self, error: Exception) -> EddyError | None:
        """What ends this process, when a client failed with `error` because the cluster does not let it in;
        None when it does. A client may fail before `look` has looked, and with an error that says something
        else: aiokafka takes a refused token for accepted, and the next answer is an IllegalSaslStateError.
        """
        problem = self.problem or _refusal(reason_of_failure(self._settings))
        if problem is None:
            return None
        return EddyError(f"{problem} ({type(error).__name__}; {_ENDING})")

    def _take(self, reason: EddyError | None) -> None:
        problem = _refusal(reason)
        if problem is None:
            if self.problem is not None and reason is None:
                log.info("the cluster lets this process in again")
            self.problem = self._since = None
            return
        if problem != self.problem:
            log.error("%s", problem)
            self.problem = problem
        now = time.monotonic()
        if self._since is None:
            self._since = now
        if self._limit_s is not None and now - self._since > self._limit_s:
            raise EddyError(f"{problem} (for {now - self._since:.0f} s; {_ENDING})")

    def close(self) -> None:
        """Close the connection."""
        admin, self._admin = self._admin, None
        if admin is not None:
            admin.close()


def _refusal(reason: EddyError | None) -> str | None:
    """The reason's words, when it is one that the cluster or the provider of tokens gives."""
    return str(reason) if isinstance(reason, Refused | NoToken) else None
