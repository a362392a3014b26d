"""The book of templates: the shipped one, and the heads that users register."""

import logging
from collections.abc import Iterator, Mapping, Sequence
from functools import lru_cache
from pathlib import Path
from threading import Lock

from models.core import check_id
from models.errors import CheckpointError, Conflict, Protected, TooLarge, UnknownName
from models.template import Template
from models.template_file import Origin, StoredTemplate, read_facts, save_template

log = logging.getLogger(__name__)

SUFFIX = ".template"
MAX_MADE = 100
"""Templates that users may keep, so that nobody fills the disk: one of 50,000 vertices takes about 10 MB."""
OPEN = 8
"""Stored templates that are kept in memory."""


class TemplateBook(Mapping[str, Template | StoredTemplate]):
    """Templates by id. Safe to use from several threads: whoever reads sees the book before a change or after it.

    Those that users register are files in `folder`, one each, and survive a restart; without a folder they last as long
    as the process. Files that cannot be used, such as those of another head, are logged and left alone.
    """

    def __init__(self, shipped: Sequence[Template], folder: Path | None = None, origin: Origin | None = None) -> None:
        assert folder is None or origin is not None, "a folder's files are of some origin"
        self._shipped = {template.id: template for template in shipped}
        self._folder, self._origin = folder, origin
        self._lock = Lock()
        self._templates: dict[str, Template | StoredTemplate] = {**self._shipped}
        self._templates |= {template.id: template for template in self._stored()}
        self._opened = lru_cache(OPEN)(StoredTemplate.open)

    def __getitem__(self, id: str) -> Template | StoredTemplate:
        return self._templates[id]

    def __iter__(self) -> Iterator[str]:
        return iter(self._templates)

    def __len__(self) -> int:
        return len(self._templates)

    def open(self, id: str) -> Template:
        """A template with all its numbers; those used last are kept in memory.

        UnknownName if there is none, CheckpointError if its file has been damaged since the start.
        """
        template = self._templates.get(id)
        if template is None:
            raise UnknownName("template", id, self._templates)
        return self._opened(template) if isinstance(template, StoredTemplate) else template

    def check_free(self, id: str, *, field: str = "name") -> None:
        """Refuse an id that cannot be given: OutOfRange for what is none, Conflict for one that is taken."""
        check_id("template", id, field=field)
        if id in self._templates:
            raise Conflict(
                f"there is a template {id} already; wanted a new name: choose another, or remove it first", field=field
            )

    def add(self, template: Template) -> None:
        """Keep a template. Refuses what `check_free` does, and TooLarge if the book is full."""
        with self._lock:
            self.check_free(template.id)
            if (made := len(self._templates) - len(self._shipped)) >= MAX_MADE:
                raise TooLarge(
                    f"there are {made} templates beside the shipped one; the limit is {MAX_MADE}: remove some"
                )
            self._templates = self._templates | {template.id: self._kept(template)}

    def remove(self, id: str) -> None:
        """Forget a template that a user registered. UnknownName if there is none, Protected if it was shipped."""
        with self._lock:
            if id not in self._templates:
                raise UnknownName("template", id, self._templates)
            if id in self._shipped:
                raise Protected(
                    f"template {id} was shipped with Talker; only heads that were uploaded can be removed",
                    field="template",
                    code="shipped_template",
                )
            if self._folder:
                self._path(id).unlink(missing_ok=True)
            self._templates = {name: template for name, template in self._templates.items() if name != id}
            self._opened.cache_clear()

    def _kept(self, template: Template) -> Template | StoredTemplate:
        """As the book holds it: written to the folder, if there is one."""
        if not self._folder:
            return template
        path = self._path(template.id)
        if path.exists():
            raise Conflict(f"{path.name} exists, though it is no template of this head; choose another name")
        assert self._origin is not None
        save_template(path, template, self._origin)
        return read_facts(path, self._origin)

    def _path(self, id: str) -> Path:
        assert self._folder is not None
        return self._folder / f"{id}{SUFFIX}"

    def _stored(self) -> Iterator[StoredTemplate]:
        """The folder's templates; what is damaged, of another head, or of a shipped id is logged."""
        for path in sorted(self._folder.glob(f"*{SUFFIX}")) if self._folder else ():
            assert self._origin is not None
            try:
                template = read_facts(path, self._origin)
            except CheckpointError as error:
                log.warning("a template is left out: %s", error)
                continue
            if template.id != path.stem or template.id in self._shipped:
                log.warning("the template in %s is left out: its id is %s; rename or remove it", path, template.id)
                continue
            yield template
