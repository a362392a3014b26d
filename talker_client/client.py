"""Talker from Python: a client that blocks. `talker_client.async_client` has the same for an event loop.

with Talker("http://127.0.0.1:8000") as talker:
    talker.animate("speech.wav", style="calm(0.7)+lively(0.3)").save("head.glb")
"""

from collections.abc import Callable, Iterator, Mapping
from os import PathLike
from pathlib import Path
from typing import Any, Self, TypeVar, Unpack

from httpx2 import Client

from talker_client import calls, flows
from talker_client.calls import Call
from talker_client.cards import AnimateFields, Expression, InfoCard, JobCard, StyleCard, TemplateCard, Upload
from talker_client.flows import Answer, Next
from talker_client.frames import FramesChunk, FramesHeader, read_frames
from talker_client.problems import TalkerBusy
from talker_client.received import JobFacts, Received, Rest
from talker_client.wire import Wire, connection

T = TypeVar("T")

RETRIES, TIMEOUT_S = 4, 600.0


class Talker:
    """A service. `timeout_s` is how long it may be silent, `retries` how often a request is sent again that it was too
    busy for, or that did not reach it; 0 sends each once. `options` are httpx's, such as `verify` and `proxy`.

    Methods raise TalkerProblem for what the service refuses, and what else `talker_client.problems` lists. They may be
    called from several threads.
    """

    def __init__(
        self,
        base_url: str,
        api_key: str | None = None,
        *,
        timeout_s: float = TIMEOUT_S,
        retries: int = RETRIES,
        **options: Any,
    ) -> None:
        self._client = Client(**connection(base_url, api_key, timeout_s), **options)
        self._wire = Wire(self._client)
        self._retries = retries

    def animate(self, audio: Upload, **fields: Unpack[AnimateFields]) -> "Animation":
        """`POST /animate`: begins to answer when the service does. Read it to its end, or close it."""
        return Animation(self._wire, self._answered(calls.animate(audio, fields)))

    def styles(self) -> list[StyleCard]:
        """Every style."""
        return self._result(calls.styles())

    def style(self, id: str) -> StyleCard:
        """One style."""
        return self._result(calls.style(id))

    def mix_style(
        self, id: str, *, motion: Expression | None = None, wrinkle: Expression | None = None, description: str = ""
    ) -> StyleCard:
        """Store a mix of styles: its motion, its wrinkles, or both."""
        return self._result(calls.mix_style(id, motion, wrinkle, description))

    def add_style(self, id: str, example: Upload) -> StyleCard:
        """Make a style from an example sequence, or from a stored pivot."""
        return self._result(calls.add_style(id, example))

    def delete_style(self, id: str) -> None:
        """Remove a style that a user made."""
        self._result(calls.delete_style(id))

    def templates(self) -> list[TemplateCard]:
        """Every head."""
        return self._result(calls.templates())

    def template(self, id: str) -> TemplateCard:
        """One head."""
        return self._result(calls.template(id))

    def add_template(
        self,
        mesh: Upload,
        *,
        name: str | None = None,
        texture: Upload | None = None,
        landmarks: Upload | Mapping[str, Any] | None = None,
    ) -> TemplateCard:
        """Register a head; the card's report tells how that went."""
        return self._result(calls.add_template(mesh, name, texture, landmarks))

    def delete_template(self, id: str) -> None:
        """Remove a head that was uploaded."""
        self._result(calls.delete_template(id))

    def template_mesh(self, id: str) -> "Download":
        """A head at rest, as a static GLB."""
        return Download(self._wire, self._answered(calls.template_mesh(id)))

    def template_preview(self, id: str) -> "Download":
        """A picture of a head, PNG."""
        return Download(self._wire, self._answered(calls.template_preview(id)))

    def upsample(
        self,
        size: int,
        *,
        map: Upload | None = None,
        texture: Upload | None = None,
        neutral: Upload | None = None,
        guide: Upload | None = None,
        media_type: str = "image/png",
    ) -> "Download":
        """A wrinkle map, or a texture with its neutral one, at `size`."""
        pictures = {"map": map, "texture": texture, "neutral": neutral, "guide": guide}
        return Download(self._wire, self._answered(calls.upsample(size, pictures, media_type)))

    def info(self) -> InfoCard:
        """What is running."""
        return self._result(calls.info())

    def ready(self) -> bool:
        """Whether the service takes requests now; not asked twice. Raises Unreachable where nothing answers."""
        try:
            self._wire.run(flows.result(calls.ready(), 0))
        except TalkerBusy:
            return False
        return True

    def submit(self, audio: Upload, **fields: Unpack[AnimateFields]) -> "Job":
        """`POST /jobs`: the fields of `animate`, done later."""
        return Job(self._wire, self._result(calls.submit(audio, fields)), self._retries)

    def job(self, id: str) -> "Job":
        """A job as it stands."""
        return Job(self._wire, self._result(calls.job(id)), self._retries)

    def jobs(self) -> list["Job"]:
        """Every job."""
        return [Job(self._wire, card, self._retries) for card in self._result(calls.jobs())]

    def close(self) -> None:
        """Close the connections, those of answers that are not read to their end, too."""
        self._client.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _answered(self, call: Call[Any]) -> Answer:
        return self._wire.run(flows.answered(call, self._retries))

    def _result(self, call: Call[T]) -> T:
        return self._wire.run(flows.result(call, self._retries))


class Download(Received):
    """A file on its way: iterate over its bytes, or read or save it, once. StreamCut where it breaks off."""

    def __init__(self, wire: Wire, answer: Answer) -> None:
        super().__init__(answer)
        self._wire = wire

    def __iter__(self) -> Iterator[bytes]:
        while (chunk := self._wire.run(flows.one(Next(self._answer.chunks)))) is not None:
            yield chunk

    def read(self) -> bytes:
        """The whole file."""
        return self._wire.run(flows.everything(self._answer))

    def save(self, path: str | PathLike[str]) -> Path:
        """Write it to a file, whole or not at all."""
        return self._wire.run(flows.saved(self._answer, Path(path)))

    def close(self) -> None:
        """Read no more; a service that is still making the file stops."""
        self._answer.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


class Animation(Download):
    """An animation on its way."""

    def frames(self) -> tuple[FramesHeader, Iterator[FramesChunk]]:
        """Of an `npz-stream`: what is known before the first frame, and the frames as they come."""
        chunks = iter(self)
        return read_frames(Rest(lambda: next(chunks, b"")))


class Job(JobFacts):
    """A job, as it stood when it was last asked for."""

    def __init__(self, wire: Wire, card: JobCard, retries: int) -> None:
        super().__init__(card)
        self._wire = wire
        self._retries = retries

    def refresh(self) -> Self:
        """Ask how it stands."""
        self.card = self._wire.run(flows.result(calls.job(self.id), self._retries))
        return self

    def wait(self, progress: Callable[[JobCard], None] = flows.ignore) -> Self:
        """Return when it is done; `progress` is called whenever it moves on. JobNotDone if it fails or is cancelled."""
        self.card = self._wire.run(flows.followed(self.id, progress, self._retries))
        return self

    def result(self, path: str | PathLike[str]) -> Path:
        """Write what a done job made to a file. Where it is cut it goes on, in a later call as well."""
        return self._wire.run(flows.fetched(self.id, Path(path), self._retries))

    def cancel(self) -> None:
        """Stop it, and drop what it made."""
        self._wire.run(flows.result(calls.cancel(self.id), self._retries))
