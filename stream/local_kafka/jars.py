"""The jars of Apache Kafka: jgo resolves them once from their Maven coordinates, later they come from the
cache.

Guarantee: a folder without its file `complete` is never used, so a download that was interrupted begins
again. A folder with that file is used without the network. `python -m eddy.stream.local_kafka.jars` fills
the cache.
"""

from __future__ import annotations

import shutil
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from eddy.models.atomic_files import atomic_write
from eddy.models.errors import EddyError
from eddy.models.locks import locked
from eddy.stream.records.settings import load_settings

KAFKA_VERSION = "4.1.1"
# Kafka's POM names a logging interface without an implementation: the broker's log would stay empty.
_COORDINATES = f"org.apache.kafka:kafka_2.13:{KAFKA_VERSION}+org.slf4j:slf4j-simple:1.7.36"
_WORTH_A_LINE_BYTES = 1_000_000

Progress = Callable[[str], None]


def kafka_class_path(cache_dir: Path, progress: Progress = lambda line: None) -> list[Path]:
    """The paths of Kafka's jars; the first time they are downloaded (about 60 MB) into `cache_dir`.

    Errors: EddyError when they are not there and cannot be downloaded.
    """
    folder = cache_dir / f"kafka-{KAFKA_VERSION}"
    complete = folder / "complete"
    folder.mkdir(parents=True, exist_ok=True)
    with locked(cache_dir / f"kafka-{KAFKA_VERSION}.lock", "another process to fetch Kafka"):
        if complete.exists():
            jars = [folder / name for name in complete.read_text().splitlines()]
            if all(jar.exists() for jar in jars):
                return jars
        shutil.rmtree(folder)
        folder.mkdir()
        jars = _resolve(folder, progress)
        with atomic_write(complete) as draft:
            draft.write_text("\n".join(str(jar.relative_to(folder)) for jar in jars))
    return jars


def _resolve(folder: Path, progress: Progress) -> list[Path]:
    from jgo.env import EnvironmentBuilder
    from jgo.maven import MavenContext, PythonResolver

    @contextmanager
    def report(filename: str, total_bytes: int) -> Iterator[Callable[[int], None]]:
        if total_bytes >= _WORTH_A_LINE_BYTES:
            progress(f"Fetching {filename} ({total_bytes / 1e6:.0f} MB)")
        yield lambda read_bytes: None

    progress(f"Fetching Apache Kafka {KAFKA_VERSION} (60 MB, once)")
    # A repository in our own folder, not the one that all programs share: jgo writes a download straight to
    # its final name, and only from our own folder may we remove a download that was interrupted.
    context = MavenContext(
        resolver=PythonResolver(progress_callback=report), repo_cache=folder / "repository"
    )
    try:
        environment = EnvironmentBuilder(context=context, cache_dir=folder).from_endpoint(_COORDINATES)
    except Exception as error:  # jgo documents no exception types
        raise EddyError(
            f"cannot download Apache Kafka {KAFKA_VERSION} into {folder} ({_first_line(error)}): check the "
            "network connection and try again, or set EDDY_BOOTSTRAP_SERVERS to a running cluster"
        ) from error
    # jgo sorts jars into Java's class path and module path; Kafka starts from one class path.
    return sorted(path for jars in ("jars", "modules") for path in (environment.path / jars).glob("*.jar"))


def _first_line(error: Exception) -> str:
    return f"{type(error).__name__}: {error}".splitlines()[0][:200]


if __name__ == "__main__":
    try:
        kafka_class_path(load_settings().cache_dir, progress=print)
    except EddyError as error:
        sys.exit(str(error))
