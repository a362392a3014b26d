"""Registrations that were made once: the same upload is not registered again, not even after a restart."""

import logging
from collections.abc import Callable
from pathlib import Path
from threading import Lock
from weakref import WeakValueDictionary

from safetensors import SafetensorError

from models.errors import CheckpointError
from models.template import Template
from models.template_file import Origin, read_template, save_template

log = logging.getLogger(__name__)

SUFFIX = ".template"
MOST, MOST_BYTES = 64, 2 << 30
"""Files that are kept, and their bytes together; those not used for longest go first."""


class Registrations:
    """Templates by the content that they were made of, as files of a folder. Safe to use from several threads, and by
    several processes. Without a folder nothing is remembered.
    """

    def __init__(self, folder: Path | None, origin: Origin, *, most: int = MOST, most_bytes: int = MOST_BYTES) -> None:
        self._folder, self._origin = folder, origin
        self._most, self._most_bytes = most, most_bytes
        self._guard = Lock()
        self._making = WeakValueDictionary[str, Lock]()

    def get(self, content: str, make: Callable[[], Template]) -> Template:
        """The template of a content, made if it is not there; of callers who ask for the same at once one makes it.

        Whoever waits for another whose `make` raises makes it anew.
        """
        with self._guard:
            alone = self._making.setdefault(content, Lock())
        with alone:
            template = self._read(content)
            if template is None:
                template = make()
                self._write(content, template)
            return template

    def _read(self, content: str) -> Template | None:
        path = self._path(content)
        if path is None or not path.is_file():
            return None
        try:
            template = read_template(path, self._origin)
            path.touch()
        except (CheckpointError, OSError) as error:
            log.warning("a remembered registration is made anew: %s", error)
            return None
        return template

    def _write(self, content: str, template: Template) -> None:
        path = self._path(content)
        if path is None:
            return
        try:
            save_template(path, template, self._origin)
            with self._guard:
                self._drop_oldest(path.parent)
        except (OSError, SafetensorError) as error:
            log.warning("a registration is not remembered: %s", error)

    def _drop_oldest(self, folder: Path) -> None:
        files = [(path.stat(), path) for path in folder.glob(f"*{SUFFIX}")]
        files.sort(key=lambda file: file[0].st_mtime_ns, reverse=True)
        size = 0
        for rank, (stat, path) in enumerate(files):
            size += stat.st_size
            if rank >= self._most or (rank and size > self._most_bytes):
                path.unlink(missing_ok=True)

    def _path(self, content: str) -> Path | None:
        return self._folder / f"{content}{SUFFIX}" if self._folder else None
