"""The demo's first version: trained once, then kept in the cache under a hash of everything that it
depends on.
"""

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


def take_cached(folder: Path, registry: Path) -> bool:
    """Copy the version that `folder` keeps, if there is one, into the registry; returns whether there was."""
    versions = sorted(folder.glob("v*"))
    if versions:
        shutil.copytree(versions[-1], registry / versions[-1].name)
    return bool(versions)


def keep(registry: Path, folder: Path) -> None:
    """Copy the registry's only version to `folder`, whole or not at all, and remove the folders beside it."""
    version = next(registry.glob("v*"))
    folder.parent.mkdir(parents=True, exist_ok=True)
    for old in folder.parent.iterdir():
        shutil.rmtree(old, ignore_errors=True)
    with atomic_write(folder) as draft:
        shutil.copytree(version, draft / version.name)
