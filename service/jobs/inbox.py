"""The inbox: forms of jobs as they came, whole or not at all."""

import json
import os
import shutil
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

from starlette.datastructures import UploadFile

from service.disk import refusing_full_disk, sync_folder
from service.schemas import AnimateForm

FORM = "form.json"
PART = ".part"
"""Ends the name of a folder that is still being written."""


class Inbox:
    """A folder of folders, one for each job: its form, and its uploads under the names of their fields."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        folder.mkdir(parents=True, exist_ok=True)

    def store(self, id: str, form: AnimateForm) -> None:
        """Write a form down; it is on disk when this returns. StorageFull, and then nothing stays."""
        part = self._folder / (id + PART)
        try:
            with refusing_full_disk():
                self._write(part, form)
                part.rename(self._folder / id)
                sync_folder(self._folder)
        except BaseException:
            shutil.rmtree(part, ignore_errors=True)
            raise

    @contextmanager
    def form(self, id: str) -> Iterator[AnimateForm]:
        """The form of a job, its uploads open until the exit."""
        folder = self._folder / id
        document = json.loads((folder / FORM).read_text(encoding="utf-8"))
        with ExitStack() as opened:
            uploads = {
                field: UploadFile(
                    opened.enter_context((folder / field).open("rb")),
                    size=(folder / field).stat().st_size,
                    filename=name,
                )
                for field, name in document["uploads"].items()
            }
            yield AnimateForm.model_validate(document["fields"] | uploads)

    def delete(self, id: str) -> None:
        """Delete the form of a job, if it is there."""
        shutil.rmtree(self._folder / id, ignore_errors=True)

    def ids(self) -> list[str]:
        """Every folder that is there, those of a process that died while it wrote included."""
        return [path.name for path in self._folder.iterdir()]

    def _write(self, folder: Path, form: AnimateForm) -> None:
        folder.mkdir()
        values = {name: getattr(form, name) for name in form.model_fields_set}
        uploads = {name: value for name, value in values.items() if isinstance(value, UploadFile)}
        for field, upload in uploads.items():
            upload.file.seek(0)
            with (folder / field).open("xb") as file:
                shutil.copyfileobj(upload.file, file)
                file.flush()
                os.fsync(file.fileno())
        document = {
            "fields": {name: value for name, value in values.items() if name not in uploads},
            "uploads": {field: upload.filename for field, upload in uploads.items()},
        }
        with (folder / FORM).open("x", encoding="utf-8") as text:
            json.dump(document, text)
            text.flush()
            os.fsync(text.fileno())
        sync_folder(folder)
