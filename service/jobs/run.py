"""A job while it is made: how far it is, and how it is stopped. The same path as `POST /animate`."""

import hashlib
import os
import time
from collections.abc import Generator, Iterable
from contextlib import ExitStack, closing
from dataclasses import dataclass, replace
from pathlib import Path
from threading import Event
from typing import BinaryIO, TypeVar

from models.core import Clip, CodeBatch, CodeStream, Frame
from models.engine import Engine
from models.errors import TooLarge
from service.animate import check_form, check_names, start_clip
from service.disk import refusing_full_disk
from service.encoders import ENCODERS, Encoder, encode
from service.isolation import Decode
from service.schemas import AnimateForm
from service.settings import Settings

Item = TypeVar("Item", Frame, CodeBatch)

WHOLE_CLIP_SHARE = 0.8
"""Of the work of an encoder that writes once it has every frame: what making the frames is, about."""


class Stopped(Exception):
    """The job was removed, or the service is stopping: no failure."""


@dataclass(frozen=True)
class Made:
    """A result that lies whole and synced in a file."""

    size: int
    sha256: str


class Run:
    """One attempt at a job, in a worker thread; others read `progress` and call `stop`."""

    def __init__(self) -> None:
        self.progress = 0.0
        """0..1; 1 only when the result can be had, which is not told here."""
        self._began_s = time.monotonic()
        self._stop = Event()

    @property
    def eta_s(self) -> float | None:
        """Seconds that are left if it goes on at this pace; None before the first frame."""
        if self.progress == 0:
            return None
        return round((time.monotonic() - self._began_s) * (1 - self.progress) / self.progress, 1)

    def stop(self) -> None:
        """End it at the next frame or chunk."""
        self._stop.set()

    def check(self) -> None:
        """Raise Stopped after `stop`."""
        if self._stop.is_set():
            raise Stopped

    def make(self, engine: Engine, form: AnimateForm, settings: Settings, decode: Decode, file: Path) -> Made:
        """Write the animation that `form` asks for, byte for byte what `POST /animate` sends, into a new file.

        Raises what `start_clip` and the frames do, Stopped, StorageFull when the disk is full, and TooLarge when the
        result alone is over TALKER_JOBS_MAX_BYTES; then there is no file.
        """
        check_form(form, settings)
        check_names(form, engine)
        clip, encoder = start_clip(engine, form, settings, decode, self.check), ENCODERS[form.format]()
        with ExitStack() as held:
            held.callback(close_clip, clip)
            chunks = held.enter_context(closing(encode(self._watched(clip, encoder), encoder)))
            return self._write(chunks, file, settings.jobs_max_bytes)

    def _write(self, chunks: Iterable[bytes], path: Path, limit: int) -> Made:
        try:
            with refusing_full_disk(), path.open("wb") as file:
                return self._copy(chunks, file, limit)
        except BaseException:
            path.unlink(missing_ok=True)  # at once: on a full disk the ledger needs the room to say so
            raise

    def _copy(self, chunks: Iterable[bytes], file: BinaryIO, limit: int) -> Made:
        digest, size = hashlib.sha256(), 0
        for chunk in chunks:
            self.check()
            digest.update(chunk)
            size += len(chunk)
            if size > limit:
                raise TooLarge(
                    f"a result of more than {limit:,} bytes, which all results together may have: send shorter audio, "
                    "or ask for fewer points or frames per second",
                    field="audio",
                )
            file.write(chunk)
        file.flush()
        os.fsync(file.fileno())
        return Made(size, digest.hexdigest())

    def _watched(self, clip: Clip, encoder: Encoder) -> Clip:
        """The clip, whose frames, or codes, tell how far it is and can be stopped."""
        share = WHOLE_CLIP_SHARE if encoder.needs_whole_clip else 1.0
        frames = self._counted(clip.frames, share / clip.frame_count)
        return replace(clip, frames=frames, codes=clip.codes and self._watched_codes(clip.codes))

    def _watched_codes(self, codes: CodeStream) -> CodeStream:
        return replace(codes, batches=self._counted(codes.batches, 1 / codes.moments))

    def _counted(self, items: Generator[Item, None, None], step: float) -> Generator[Item, None, None]:
        """Items as they come; each is a step, and a batch as many as it has moments."""
        for item in items:
            self.check()
            self.progress = min(self.progress + step * (1 if isinstance(item, Frame) else len(item.contact)), 0.99)
            yield item


def close_clip(clip: Clip) -> None:
    """Free the engine."""
    clip.frames.close()
    if clip.codes is not None:
        clip.codes.batches.close()
