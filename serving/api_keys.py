"""API keys: who may ask, and for what.

The file (`EDDY_API_KEYS_FILE`) has a line per key: a name, the SHA-256 of the key in hex, and its scopes. It
holds no key itself. `eddy api-key` makes a key and its line.

    # name     SHA-256 of the key                                                 scopes
    shop       9f86d081884c7d659a2feaa0c55ad015a3bf4f1b2b0b822cd15d6c15b0f00a08   read,write
"""

import hashlib
import logging
import re
import secrets
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path

from eddy.models.errors import EddyError

log = logging.getLogger("eddy.serving")

CALLER = "eddy.caller"
"""Where an ASGI scope says whose key the request carries (an `ApiKey`); absent when keys are not used."""

SCOPES = ("read", "write", "erase", "operate")

LOOK_EVERY_S = 1.0
"""So often at most the file is looked at."""

MAX_FILE_BYTES = 1 << 20

_NAME = re.compile(r"[A-Za-z0-9._-]{1,64}")
_SHA256 = re.compile(r"[0-9a-fA-F]{64}")


@dataclass(frozen=True)
class ApiKey:
    """A key as the server knows it."""

    name: str
    scopes: frozenset[str]


def new_key(name: str, scopes: Iterable[str]) -> tuple[str, str]:
    """A new key of 256 random bits, and its line for the file. Errors: EddyError for a bad name or scope."""
    key = "eddy_" + secrets.token_urlsafe(32)
    line = f"{name} {_digest(key.encode()).hex()} {','.join(scopes)}"
    _parse(line, f"key {name!r}")
    return key, line


class ApiKeys:
    """The keys of a file, which is read again when it changes, so that keys can be exchanged while the server
    runs.

    A file that has become unreadable is reported, and the keys from before stay valid.
    """

    def __init__(self, path: Path, clock: Callable[[], float] = time.monotonic) -> None:
        """Errors: EddyError when the file cannot be used."""
        self.problem: str | None = None
        """why the file cannot be used at the moment"""
        self._path = path
        self._clock = clock
        self._look_at = clock() + LOOK_EVERY_S
        self._seen, self._keys = _read(path)

    def find(self, presented: bytes) -> ApiKey | None:
        """The key that a caller presents. How long this takes depends on the SHA-256 of what is presented
        alone, and so tells nothing of the keys.
        """
        self._look()
        return self._keys.get(_digest(presented))

    def _look(self) -> None:
        now = self._clock()
        if now < self._look_at:
            return
        self._look_at = now + LOOK_EVERY_S
        try:
            if _version(self._path) == self._seen and self.problem is None:
                return
            self._seen, self._keys = _read(self._path)
        except EddyError as error:
            if str(error) != self.problem:
                log.warning("API keys stay as they were: %s", error)
            self.problem = str(error)
            return
        self.problem = None
        log.info("%d API keys read from %s", len(self._keys), self._path)


Seen = tuple[int, int, int]
"""The inode, size and time of change (ns) of the file as it was read."""


def _version(path: Path) -> Seen:
    try:
        stat = path.stat()
    except OSError as error:
        raise EddyError(f"EDDY_API_KEYS_FILE: {path}: cannot be read ({error.strerror})") from None
    return stat.st_ino, stat.st_size, stat.st_mtime_ns


def _read(path: Path) -> tuple[Seen, dict[bytes, ApiKey]]:
    """Errors: EddyError that names the line."""
    seen = _version(path)
    if seen[1] > MAX_FILE_BYTES:
        raise EddyError(f"EDDY_API_KEYS_FILE: {path}: more than {MAX_FILE_BYTES} bytes is no list of keys")
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise EddyError(f"EDDY_API_KEYS_FILE: {path}: cannot be read ({error})") from None
    keys = dict(
        _parse(line, f"EDDY_API_KEYS_FILE: {path}, line {number}")
        for number, line in enumerate(lines, 1)
        if line.strip() and not line.lstrip().startswith("#")
    )
    return seen, keys


def _parse(line: str, where: str) -> tuple[bytes, ApiKey]:
    """The SHA-256 and the key of a line. Errors: EddyError, without the line, which may hold a key."""
    parts = line.split()
    if len(parts) != 3:
        raise EddyError(f"{where}: give NAME SHA256 SCOPES; make a line with: eddy api-key NAME --scope read")
    name, sha256, scopes = parts[0], parts[1], parts[2].split(",")
    if not _NAME.fullmatch(name):
        raise EddyError(f"{where}: a name has up to 64 letters, digits, dots, dashes and underscores")
    if not _SHA256.fullmatch(sha256):
        raise EddyError(f"{where}: the second part is the key's SHA-256, 64 hex digits, never the key")
    unknown = sorted(set(scopes) - set(SCOPES))
    if unknown:
        raise EddyError(f"{where}: there is no scope {unknown[0]!r}; there are {', '.join(SCOPES)}")
    return bytes.fromhex(sha256), ApiKey(name, frozenset(scopes))


def _digest(key: bytes) -> bytes:
    return hashlib.sha256(key).digest()
