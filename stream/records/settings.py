"""The one settings class: every value that a deployment can choose, with its default and its unit.

Read from the environment (`EDDY_*`, for example `EDDY_BOOTSTRAP_SERVERS`); the command line's options
override it. Guarantee: a wrong value is one `EddyError` line that names the variable; no repr shows a secret.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from datetime import UTC, datetime
from difflib import get_close_matches
from pathlib import Path
from typing import Annotated, Any, Literal
from urllib.parse import urlsplit

from pydantic import (
    BeforeValidator,
    Field,
    InstanceOf,
    SecretStr,
    ValidationError,
    ValidationInfo,
    field_validator,
)
from pydantic_settings import BaseSettings, NoDecode, SettingsConfigDict

from eddy.models.errors import EddyError
from eddy.models.event_limits import EARLIEST_MS
from eddy.models.machine_cache import cache_folder
from eddy.models.rules import EventRules
from eddy.models.storage import Location, located
from eddy.stream.records.admission import Admission
from eddy.stream.records.partitioner import Partitioner

ENV_PREFIX = "EDDY_"

_SIMILAR = 0.8
"""From this ratio of equal letters on, one name may be meant by another."""


@dataclass(frozen=True)
class TopicNames:
    """The eight topics of one installation: the plain names of the design behind an optional prefix."""

    prefix: str = ""

    @property
    def events(self) -> str:
        return self.prefix + "events"

    @property
    def items(self) -> str:
        return self.prefix + "items"

    @property
    def recommendations(self) -> str:
        return self.prefix + "recommendations"

    @property
    def user_state(self) -> str:
        return self.prefix + "user-state"

    @property
    def model_versions(self) -> str:
        return self.prefix + "model-versions"

    @property
    def item_stats(self) -> str:
        return self.prefix + "item-stats"

    @property
    def metrics(self) -> str:
        return self.prefix + "metrics"

    @property
    def dead_letters(self) -> str:
        return self.prefix + "dead-letters"


_DAY_MS = 86_400_000
MAX_DAYS = 36_500
"""A hundred years: no setting in days means more."""


def _moment(value: Any) -> Any:
    """ms since 1970 from an ISO date or time (UTC unless it says otherwise), or as they are."""
    text = str(value)
    if text.isdecimal():
        if 0 < int(text) < _DAY_MS:  # "1990" is no count of milliseconds
            raise ValueError("give a date such as 1990-01-01, or milliseconds since 1970")
        return int(text)
    try:
        moment = datetime.fromisoformat(text)
    except ValueError:
        raise ValueError("give a date such as 1990-01-01, or milliseconds since 1970") from None
    return round((moment if moment.tzinfo else moment.replace(tzinfo=UTC)).timestamp() * 1000)


def _folder(value: Any) -> Any:
    """A folder of this machine, or on object storage."""
    try:
        return located(value)
    except EddyError as error:
        raise ValueError(str(error)) from None


def _is_address(text: str) -> bool:
    """Whether this is host:port, or a host alone; an IPv6 address is in brackets."""
    try:
        parts = urlsplit(f"//{text}")
        return bool(parts.hostname) and parts.netloc == text and parts.port != 0 and not text.endswith(":")
    except ValueError:
        return False


def _cache(value: Any) -> Any:
    """An empty variable is one that is not set, as for `cache_folder`."""
    return cache_folder() if str(value) == "" else value


# Without NoDecode a dataclass is taken for JSON in the environment.
Folder = Annotated[InstanceOf[Location], NoDecode, BeforeValidator(_folder)]


class Settings(BaseSettings):
    """Settings of all parts. Build it with `load_settings`, which words errors for users."""

    model_config = SettingsConfigDict(
        env_prefix=ENV_PREFIX, frozen=True, extra="forbid", regex_engine="python-re"
    )

    # The cluster. Without servers, `eddy broker`, `eddy demo` and the tests start one of their own.
    bootstrap_servers: str | None = None
    security_protocol: Literal["PLAINTEXT", "SSL", "SASL_PLAINTEXT", "SASL_SSL"] = "PLAINTEXT"
    sasl_mechanism: Literal["PLAIN", "SCRAM-SHA-256", "SCRAM-SHA-512", "OAUTHBEARER"] | None = None
    sasl_username: str | None = None
    sasl_password: SecretStr | None = None
    sasl_oauth_token_provider: str | None = Field(
        default=None,
        description="for OAUTHBEARER: an entry point of the group eddy.oauth_token_provider (aws-msk-iam is "
        "one), or module:function",
    )
    ssl_cafile: Path | None = Field(default=None, description="PEM; none: the system's authorities")
    ssl_certfile: Path | None = Field(default=None, description="PEM, this client's, for mutual TLS")
    ssl_keyfile: Path | None = Field(default=None, description="PEM; none: the key is in ssl_certfile")
    ssl_password: SecretStr | None = Field(default=None, description="of the key")
    ssl_check_hostname: bool = True

    # Topics. Partitions and prefix are fixed once events exist: offsets in rows count on them.
    topic_prefix: str = Field(default="", pattern=r"^[A-Za-z0-9._-]{0,150}$")
    partitions: int = Field(default=4, ge=1, le=10_000)
    partitioner: Partitioner = Field(
        default="murmur2", description="of the producers of events; crc32: librdkafka's default"
    )
    earliest_event: Annotated[int, BeforeValidator(_moment)] = Field(
        default=EARLIEST_MS,
        ge=0,
        le=253_402_300_799_999,
        description="a date or ms; events before it are refused; 0: none is",
    )
    replication: int = Field(default=-1, ge=-1, le=32_767, description="-1: the cluster's default")
    events_retention_days: float = Field(default=30, gt=0, le=MAX_DAYS)
    recommendations_retention_days: float = Field(default=1, gt=0, le=MAX_DAYS)

    # Workers.
    group: str = Field(default="eddy", pattern=r"^(?!\.{1,2}$)[A-Za-z0-9._-]{1,150}$")
    session_timeout_s: float = Field(default=10, ge=6, le=300, description="how fast a crash heals")
    checkpoint_ms: int = Field(default=200, ge=1, le=60_000)
    device: str = Field(default="auto", pattern=r"^(auto|cpu|cuda(:\d{1,3})?)$")
    worker_id: str | None = Field(
        default=None,
        pattern=r"^(?!\.{1,2}$)[A-Za-z0-9._-]{1,249}$",
        description="a stable name makes a restarted worker take its partitions up at once (KIP-345)",
    )
    standby: bool = Field(
        default=False, description="keep copies of the rows of other workers' partitions, to begin with"
    )
    stall_s: float = Field(
        default=120, ge=1, le=604_800, description="no progress for longer ends the worker"
    )
    idle_days: float | None = Field(
        default=None, gt=0, le=MAX_DAYS, description="rows idle for longer are dropped"
    )
    item_idle_days: float = Field(
        default=90,
        gt=0,
        le=MAX_DAYS,
        description="items that nobody touched for longer leave, if no version knows them and they have no "
        "metadata",
    )
    threads: int = Field(default=2, ge=1, le=1024, description="that score lists, side by side")
    precision: Literal["float32", "bfloat16", "int8", "auto"] = Field(
        default="auto", description="of the first pass over the items; auto: float32 up to 4,096 items"
    )
    metrics_port: int | None = Field(
        default=None, ge=0, le=65_535, description="Prometheus; 0: any free port"
    )
    prequential_sample: float = Field(
        default=0.1, ge=0, le=1, description="share of users ranked before applying"
    )
    prequential_time: float = Field(
        default=0.05,
        gt=0,
        le=1,
        description="share of the time for these ranks, the sample is thinned to keep it; 1: no limit",
    )
    k: int = Field(default=20, ge=1, le=1_000, description="length of an emitted list")
    exclude_seen: bool = False
    emit: Literal["every", "latest", "off"] = "latest"

    # Which event types move the state, are targets, are negative: `eddy.models.rules.EventRules` says the
    # grammar.
    state_events: str = "*"
    target_events: str = "*"
    negative_events: str = "rating<3,dislike,remove"

    # Files.
    registry: Folder = located("registry")
    event_log: Folder = located("event-log")
    event_log_days: float | None = Field(
        default=None, gt=0, le=MAX_DAYS, description="older days leave the log, counted from its newest"
    )
    cache_dir: Annotated[Path, BeforeValidator(_cache)] = Field(default_factory=cache_folder)

    # Training.
    training_memory_gb: float | None = Field(
        default=None,
        gt=0,
        le=1_000_000,
        description="of each training process; what of a log does not fit goes to files in the cache folder",
    )

    # Serving.
    host: str = Field(default="127.0.0.1", description="where servers listen, and workers for metrics_port")
    port: int = Field(default=8000, ge=0, le=65_535, description="0: any free port")
    api_keys_file: Path | None = Field(
        default=None, description="who may ask, and for what; none: everybody everything"
    )
    page: bool = Field(default=True, description="the live page at /")
    http_max_wait_ms: float = Field(
        default=100, ge=1, le=60_000, description="questions that would wait for longer are refused at once"
    )
    http_max_concurrent: int = Field(default=512, ge=1, le=100_000, description="requests under way at once")
    http_max_connections: int = Field(default=800, ge=1, le=1_000_000, description="of each process")
    http_max_streams: int = Field(
        default=200, ge=0, le=100_000, description="open streams of events (/v1/live and others)"
    )
    http_keep_alive_s: float = Field(
        default=75, ge=1, le=86_400, description="idle connections live; longer than your balancer's"
    )
    http_drain_s: float = Field(
        default=0, ge=0, le=600, description="go on for so long after SIGTERM, while /readyz says no"
    )
    http_root_path: str = Field(
        default="",
        pattern=r"^[A-Za-z0-9._~/-]{0,500}$",
        description="the path below which your proxy shows the API, and which it strips",
    )
    http_cors_origins: str = Field(
        default="", pattern=r"^[\x21-\x7e]{0,4096}$", description="of pages that may ask: a,b or *"
    )
    http_trusted_proxies: str = Field(
        default="",
        pattern=r"^[0-9A-Fa-f.:/,*]{0,4096}$",
        description="addresses or networks whose X-Forwarded-For and -Proto are believed: a,b or *",
    )
    http_access_log: bool = Field(default=False, description="a log line per request")
    log_format: Literal["line", "json"] = "line"

    @field_validator("bootstrap_servers")
    @classmethod
    def _addresses(cls, servers: str | None) -> str | None:
        if not servers:
            return None
        addresses = [address.strip() for address in servers.split(",")]
        for address in addresses:
            if not _is_address(address):
                raise ValueError(f"{address!r} is not host:port")
        return ",".join(addresses)

    @field_validator("replication")
    @classmethod
    def _some_replica(cls, replication: int) -> int:
        if replication == 0:
            raise ValueError("give 1 or more, or -1 for the cluster's default")
        return replication

    @field_validator("stall_s")
    @classmethod
    def _longer_than_a_checkpoint(cls, stall_s: float, info: ValidationInfo) -> float:
        checkpoint_ms = info.data.get("checkpoint_ms", 0)
        if stall_s * 1000 < 2 * checkpoint_ms:
            raise ValueError(
                f"offsets are committed every EDDY_CHECKPOINT_MS ({checkpoint_ms}) only: give at least "
                f"{2 * checkpoint_ms / 1000:g}"
            )
        return stall_s

    @property
    def topics(self) -> TopicNames:
        return TopicNames(self.topic_prefix)

    @property
    def admission(self) -> Admission:
        """Which records of `events` are taken."""
        return Admission(self.partitions, self.partitioner, self.earliest_event)

    @property
    def rules(self) -> EventRules:
        return EventRules(self.state_events, self.target_events, self.negative_events)

    @property
    def torch_device(self) -> str:
        """The device by torch's name: "auto" is the GPU where there is one. Errors: EddyError when there is
        no such device here.
        """
        import torch

        gpus = torch.cuda.device_count()
        if self.device == "auto":
            return "cuda" if gpus else "cpu"
        device = torch.device(self.device)
        if device.type == "cuda" and (device.index or 0) >= gpus:
            raise EddyError(f"EDDY_DEVICE={self.device}: torch sees {gpus} GPUs here; give cpu, or auto")
        return self.device

    def replace(self, **values: Any) -> Settings:
        """Returns a validated copy with these values; the environment is not read again."""
        current = {name: getattr(self, name) for name in type(self).model_fields}
        return _validated(current | values)


def load_settings(**overrides: Any) -> Settings:
    """Reads the environment; an override that is None leaves the environment's value or the default.

    Errors: EddyError that names each wrong variable and what is wrong with it.
    """
    return _validated({name: value for name, value in overrides.items() if value is not None})


def variable_of(name: str) -> str:
    """The variable of the environment that sets a setting."""
    return ENV_PREFIX + name.upper()


def misspelt_settings(variables: Iterable[str]) -> dict[str, str]:
    """The variables that are no settings but look like one, each with the setting that may be meant."""
    settings = [name.upper() for name in Settings.model_fields]
    meant = {}
    for variable in variables:
        name = variable.removeprefix(ENV_PREFIX)
        if name != variable and name not in settings:
            for similar in get_close_matches(name, settings, n=1, cutoff=_SIMILAR):
                meant[variable] = variable_of(similar)
    return meant


def _validated(values: dict[str, Any]) -> Settings:
    try:
        return Settings(**values)
    except ValidationError as error:
        wrong = "; ".join(
            f"{variable_of(str(entry['loc'][0]))}: {entry['msg'].removeprefix('Value error, ')}"
            for entry in error.errors(include_input=False, include_url=False)
        )
        raise EddyError(f"wrong settings: {wrong}") from None
