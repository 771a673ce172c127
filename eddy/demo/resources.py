"""What one run of the demo uses: a folder in the user's cache, ports, and topics of its own."""

import secrets
import shutil
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from filelock import FileLock, Timeout

from eddy.demo.inherited import without_left_out
from eddy.models.errors import EddyError
from eddy.stream.kafka.clients import admin_client
from eddy.stream.kafka.topics import prepare_topics, topic_specs
from eddy.stream.local_kafka.free_port import free_port, is_free
from eddy.stream.records.settings import Settings
from eddy.stream.state.snapshots import snapshots_folder

_OLD_S = 7 * 86_400.0
"""What failed or killed runs have left is removed when it is older."""

_GROUP = "eddy-demo-"


@contextmanager
def run_folder(cache: Path) -> Iterator[Path]:
    """A folder for the run's registry, event log and logs. It stays for a week if the run fails, and else
    goes.
    """
    runs = cache / "demo" / "runs"
    folder = runs / f"{time.strftime('%Y%m%d-%H%M%S')}-{secrets.token_hex(3)}"
    try:
        (folder / "registry").mkdir(parents=True)
    except OSError as error:
        raise EddyError(
            f"{folder}: cannot be created ({error}); set EDDY_CACHE_DIR to a folder of yours"
        ) from None
    for old in (*runs.iterdir(), *snapshots_folder(cache).glob(f"{_GROUP}*")):
        with suppress(FileNotFoundError):  # another run has ended
            if time.time() - old.stat().st_mtime > _OLD_S:
                shutil.rmtree(old, ignore_errors=True)
    failed = True
    try:
        yield folder
        failed = False
    except KeyboardInterrupt:
        failed = False
        raise
    finally:
        if not failed:
            shutil.rmtree(folder, ignore_errors=True)


@contextmanager
def run_topics(settings: Settings, servers: str, folder: Path) -> Iterator[Settings]:
    """Create the run's topics and yield its settings; on a cluster of the user's the topics are deleted at
    the end.

    Errors: EddyError when the port in `settings` is taken, or the topics cannot be created.
    """
    is_guest = settings.bootstrap_servers is not None
    name = f"{_GROUP}{secrets.token_hex(4)}"
    with server_port(settings, folder.parent.parent) as port:
        run_settings = without_left_out(settings).replace(
            bootstrap_servers=servers,
            topic_prefix=f"{name}." if is_guest else "",
            group=name,
            registry=folder / "registry",
            event_log=folder / "event-log",
            port=port,
            metrics_port=free_port(settings.host),
            prequential_sample=1.0,
            prequential_time=1.0,
        )
        try:
            prepare_topics(run_settings)
            yield run_settings
        finally:
            # The workers' snapshots, which nobody reads again: every run has a group of its own.
            shutil.rmtree(snapshots_folder(settings.cache_dir) / name, ignore_errors=True)
            if is_guest:
                with suppress(Exception), admin_client(run_settings) as admin:
                    admin.delete_topics([spec.name for spec in topic_specs(run_settings)])


@contextmanager
def server_port(settings: Settings, folder: Path) -> Iterator[int]:
    """The port that the user has set; otherwise the default port, or any free port if another program or
    another run of the demo has that one. A lock file in `folder` keeps the default port for a run before its
    server listens there.

    Errors: EddyError when the port that the user has set is taken, or the host is another machine.
    """
    host, port = settings.host, settings.port
    try:
        free_port(host)
    except OSError as error:
        raise EddyError(
            f"cannot listen on {host} ({error.strerror or error}); choose another address with EDDY_HOST"
        ) from None
    if "port" in settings.model_fields_set and port:
        if not is_free(host, port):
            raise EddyError(f"port {port} is taken: stop what listens there, or set EDDY_PORT to another one")
        yield port
        return
    lock = FileLock(folder / f"port-{port}.lock")
    try:
        lock.acquire(timeout=0)
    except Timeout:
        yield free_port(host)
        return
    try:
        yield port if port and is_free(host, port) else free_port(host)
    finally:
        lock.release()
