"""API keys: a file of names and digests, read anew whenever it changes.

A line is `name:digest`, the digest being sha256 of the key in hex; an empty line, or one that begins with #, is a
comment. Keys are 256 random bits, so that a plain digest gives nothing away. The file is replaced, never rewritten:
a service reads the old one or the new one.
"""

import logging
import os
import re
import secrets
from collections.abc import Mapping
from hashlib import sha256
from hmac import compare_digest
from pathlib import Path

from models.errors import SHOWN, Conflict, MalformedInput, UnknownName

log = logging.getLogger(__name__)

KEY_BYTES = 32
NAME = re.compile(r"[A-Za-z0-9._-]{1,64}")
LINE = re.compile(rf"({NAME.pattern}):([0-9a-f]{{64}})")
FOR_OTHERS = 0o027
"""Modes that a file of keys should not have: writable by its group, or anything to the rest of the world."""

Digests = Mapping[str, bytes]
"""sha256 of each key, by the key's name."""


class KeyRing:
    """The keys of a file, as it is at each request: who is taken off it is refused from then on."""

    def __init__(self, path: Path) -> None:
        """Read the file. MalformedInput where it cannot be read, or a line is none."""
        self._path = path
        self._version, self._digests = _version(path), read_keys(path)
        if path.stat().st_mode & FOR_OTHERS:
            log.warning("%s is open to others than its owner; wanted mode 0600: chmod 600 it", path)

    def name_of(self, key: bytes) -> str | None:
        """The name of a key, found in a time that tells nothing of the keys; None for one that is unknown."""
        found, digest = None, sha256(key).digest()
        for name, known in self._current().items():
            if compare_digest(digest, known):
                found = name
        return found

    def _current(self) -> Digests:
        """The file's keys. Nobody is let in by a file that is gone or damaged, until it is whole again."""
        if (version := _version(self._path)) != self._version:
            self._version, self._digests = version, {}
            try:
                self._digests = read_keys(self._path)
            except MalformedInput as error:
                log.error("no API key is accepted any more: %s", error)
            else:
                log.info("%s has changed: %d API keys", self._path, len(self._digests))
        return self._digests


def read_keys(path: Path) -> Digests:
    """The keys of a file. MalformedInput where it cannot be read, and for a line that is no key or names one twice."""
    digests: dict[str, bytes] = {}
    for number, line in enumerate(_lines(path), 1):
        if not line.strip() or line.startswith("#"):
            continue
        fields = LINE.fullmatch(line.strip())
        if fields is None or fields[1] in digests:
            raise MalformedInput(
                f"line {number} of {path} is no key, or names one twice; wanted name:digest, the sha256 in 64 hex "
                "digits: make keys by `talker keys add NAME`",
                field="keys",
            )
        digests[fields[1]] = bytes.fromhex(fields[2])
    return digests


def add_key(path: Path, name: str) -> str:
    """Make a key, note its digest, and return it: it is nowhere else. MalformedInput for a name that is none, or a
    file that is none; Conflict for a name that is taken.
    """
    if not NAME.fullmatch(name):
        raise MalformedInput(
            f"{name[:SHOWN]!r} as the name of a key; wanted 1 to 64 letters, digits, dots, _ or -: choose another",
            field="name",
        )
    lines = _lines(path) if path.exists() else []
    if path.exists() and name in read_keys(path):
        raise Conflict(f"there is a key {name} already; remove it first, or choose another name", field="name")
    key = secrets.token_urlsafe(KEY_BYTES)
    _replace(path, [*lines, f"{name}:{sha256(key.encode()).hexdigest()}"])
    return key


def remove_key(path: Path, name: str) -> None:
    """Take a key off the file. UnknownName if there is none."""
    known = read_keys(path)
    if name not in known:
        raise UnknownName("key", name, known, field="name")
    _replace(path, [line for line in _lines(path) if not line.strip().startswith(f"{name}:")])


def _lines(path: Path) -> list[str]:
    try:
        return path.read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise MalformedInput(
            f"{path} cannot be read ({error}); wanted the file of API keys: check TALKER_KEYS", field="keys"
        ) from error


def _replace(path: Path, lines: list[str]) -> None:
    """The file with other lines, for its owner alone, whole at every moment."""
    path = path.resolve()
    partial = path.with_name(f".{path.name}.{os.getpid()}.partial")
    try:
        with os.fdopen(os.open(partial, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w", encoding="utf-8") as file:
            file.writelines(f"{line}\n" for line in lines)
            file.flush()
            os.fsync(file.fileno())
        partial.replace(path)
    finally:
        partial.unlink(missing_ok=True)


def _version(path: Path) -> tuple[int, ...]:
    """What changes with the file; nothing where there is none."""
    try:
        stat = path.stat()
    except OSError:
        return ()
    return stat.st_ino, stat.st_size, stat.st_mtime_ns
