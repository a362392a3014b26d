"""The engine in this process, as commands use it: the service's settings, forms and checks."""

import logging
from collections.abc import Mapping
from contextlib import closing
from dataclasses import replace
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, BinaryIO, TypeVar

from models.errors import MalformedInput
from models.files import whole_file
from service.cli.outcomes import Made

if TYPE_CHECKING:
    from collections.abc import Generator

    from pydantic import BaseModel

    from models.core import Clip, Frame
    from models.engine import Engine
    from service.settings import Settings

    Form = TypeVar("Form", bound=BaseModel)


class Here:
    """Animates in this process; the engine is loaded when the first form has passed."""

    def __init__(self) -> None:
        self.settings = read_settings()

    @cached_property
    def engine(self) -> "Engine":
        """The engine that the settings ask for."""
        return open_engine(self.settings)

    def animate(self, fields: Mapping[str, str | None], files: Mapping[str, BinaryIO], output: Path) -> Made:
        """Write one animation, whole or not at all. Raises what the service would refuse."""
        from models.audio import decode_audio
        from service.animate import check_form, check_names, start_clip
        from service.encoders import ENCODERS, encode
        from service.schemas import AnimateForm

        form = read_form(AnimateForm, fields, files)
        check_form(form, self.settings)
        check_names(form, self.engine)
        clip = start_clip(self.engine, form, self.settings, decode_audio)
        with whole_file(output) as file, closing(encode(shown(clip), ENCODERS[form.format]())) as chunks:
            file.writelines(chunks)
        return Made(clip.frame_count, clip.fps)


def read_settings(**given: str | None) -> "Settings":
    """The environment's settings, overridden by what is given. MalformedInput names the first that cannot be."""
    from pydantic import ValidationError

    from service.settings import Settings

    try:
        return Settings.model_validate({name: value for name, value in given.items() if value is not None})
    except ValidationError as error:
        first = error.errors()[0]
        message = first["msg"].removeprefix("Value error, ")
        if first["loc"]:
            message = f"setting {first['loc'][0]} = {first['input']}: {message}; docs/settings.md lists what can be set"
        raise MalformedInput(message) from error


def read_form(model: "type[Form]", fields: Mapping[str, str | None], files: Mapping[str, BinaryIO]) -> "Form":
    """The form that a client would send. Refuses what the service would."""
    from starlette.datastructures import UploadFile

    from service.problems import validated

    texts = {name: value for name, value in fields.items() if value is not None}
    return validated(model, texts | {name: UploadFile(file, filename=file.name) for name, file in files.items()})


def open_engine(settings: "Settings") -> "Engine":
    """The engine; the first start takes seconds, and says why."""
    import service.runtime

    logging.basicConfig(format="talker: %(message)s")
    logging.getLogger("models").setLevel(settings.log_level.upper())
    return service.runtime.open_engine(settings)


def shown(clip: "Clip") -> "Clip":
    """The clip, with a progress bar on stderr where that is a terminal."""
    from tqdm import tqdm

    def counted() -> "Generator[Frame, None, None]":
        with closing(clip.frames) as frames:
            yield from tqdm(frames, total=clip.frame_count, unit=" frames", leave=False, disable=None)

    return replace(clip, frames=counted())
