"""The demo's first version: trained once, kept in the cache under a hash of all that it depends on."""

import shutil
from collections.abc import Sequence
from importlib.metadata import version as installed
from pathlib import Path

import xxhash

from eddy import models
from eddy.models.atomic_files import atomic_write


def cache_key(events_file: Path, arguments: Sequence[str]) -> str:
    """A hash of the events, the training's arguments, the code in models/ and torch's version."""
    digest = xxhash.xxh3_64()
    for path in [events_file, *sorted(Path(models.__path__[0]).rglob("*.py"))]:
        digest.update(path.read_bytes())
    digest.update("\n".join([*arguments, installed("torch")]).encode())
    return digest.hexdigest()


def take_cached(place: Path, registry: Path) -> bool:
    """Copy the version kept in `place`, if there is one, into the registry; returns whether there was."""
    kept = sorted(place.glob("v*"))
    if kept:
        shutil.copytree(kept[-1], registry / kept[-1].name)
    return bool(kept)


def keep(registry: Path, place: Path) -> None:
    """Copy the registry's only version to `place`, whole or not at all; older versions there go."""
    version = next(registry.glob("v*"))
    place.parent.mkdir(parents=True, exist_ok=True)
    for old in place.parent.iterdir():
        shutil.rmtree(old, ignore_errors=True)
    with atomic_write(place) as draft:
        shutil.copytree(version, draft / version.name)
