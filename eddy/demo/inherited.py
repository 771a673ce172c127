"""Which of a user's settings hold for the demo.

The cluster and the machine are the user's: their settings reach the demo and all of its processes. All else
is the demo's own, so that what somebody has set for their installation (keys, rules of events, limits, the
form of log lines, on which the demo reads its progress) neither breaks a run nor changes what it shows.
"""

from collections.abc import Mapping
from typing import Any

from eddy.stream.records.settings import ENV_PREFIX, Settings, variable_of

_MACHINE = frozenset(("host", "port", "cache_dir", "device", "threads", "precision"))

_CLUSTER = frozenset(
    (
        "bootstrap_servers", "security_protocol", "sasl_mechanism", "sasl_username", "sasl_password",
        "sasl_oauth_token_provider", "ssl_cafile", "ssl_certfile", "ssl_keyfile", "ssl_password",
        "ssl_check_hostname", "replication",
    )
)  # fmt: skip
"""Settings of a cluster of the user's. The demo's own broker asks for no login and keeps one copy."""

_OF_THE_RUN = (
    "bootstrap_servers", "topic_prefix", "group", "registry", "event_log", "port", "metrics_port",
    "prequential_sample", "prequential_time",
)  # fmt: skip
"""Settings that a run chooses."""


def _held(settings: Settings) -> frozenset[str]:
    """The settings that a user may choose for the demo."""
    return _MACHINE | _CLUSTER if settings.bootstrap_servers else _MACHINE


def _default(name: str) -> Any:
    return Settings.model_fields[name].get_default(call_default_factory=True)


def left_out(settings: Settings) -> list[str]:
    """The settings that the user has chosen and that do not hold for the demo."""
    chosen = settings.model_fields_set - _held(settings)
    return sorted(name for name in chosen if getattr(settings, name) != _default(name))


def without_left_out(settings: Settings) -> Settings:
    """The settings with the defaults in place of what does not hold for the demo."""
    return settings.replace(**{name: _default(name) for name in left_out(settings)})


def environment(settings: Settings, run: Settings, inherited: Mapping[str, str]) -> dict[str, str]:
    """The environment of a run's processes: the run's settings, and what of the inherited variables is no
    setting or holds for the demo. settings: the user's.
    """
    own = {variable_of(name): str(getattr(run, name)) for name in _OF_THE_RUN}
    held = {variable_of(name) for name in _held(settings)} - own.keys()
    kept = {name: value for name, value in inherited.items() if _is_kept(name.upper(), held)}
    return kept | own


def _is_kept(variable: str, held: set[str]) -> bool:
    return not variable.startswith(ENV_PREFIX) or variable in held
