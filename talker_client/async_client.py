"""Talker from Python, on an event loop: `talker_client.client`, with await.

async with AsyncTalker("http://127.0.0.1:8000") as talker:
    await (await talker.animate("speech.wav", style="calm(0.7)+lively(0.3)")).save("head.glb")
"""

from collections.abc import AsyncIterator, Callable, Iterator, Mapping
from os import PathLike
from pathlib import Path
from typing import Any, Self, TypeVar, Unpack

from anyio import from_thread, to_thread
from httpx2 import AsyncClient

from talker_client import calls, flows
from talker_client.calls import Call
from talker_client.cards import AnimateFields, Expression, InfoCard, JobCard, StyleCard, TemplateCard, Upload
from talker_client.client import RETRIES, TIMEOUT_S
from talker_client.flows import Answer, Next
from talker_client.frames import FramesChunk, FramesHeader, read_frames
from talker_client.problems import TalkerBusy
from talker_client.received import JobFacts, Received, Rest
from talker_client.wire import AsyncWire, connection

T = TypeVar("T")


class AsyncTalker:
    """A service; see `Talker`."""

    def __init__(
        self,
        base_url: str,
        api_key: str | None = None,
        *,
        timeout_s: float = TIMEOUT_S,
        retries: int = RETRIES,
        **options: Any,
    ) -> None:
        self._client = AsyncClient(**connection(base_url, api_key, timeout_s), **options)
        self._wire = AsyncWire(self._client)
        self._retries = retries

    async def animate(self, audio: Upload, **fields: Unpack[AnimateFields]) -> "AsyncAnimation":
        """See `Talker.animate`."""
        return AsyncAnimation(self._wire, await self._answered(calls.animate(audio, fields)))

    async def styles(self) -> list[StyleCard]:
        """See `Talker.styles`."""
        return await self._result(calls.styles())

    async def style(self, id: str) -> StyleCard:
        """See `Talker.style`."""
        return await self._result(calls.style(id))

    async def mix_style(
        self, id: str, *, motion: Expression | None = None, wrinkle: Expression | None = None, description: str = ""
    ) -> StyleCard:
        """See `Talker.mix_style`."""
        return await self._result(calls.mix_style(id, motion, wrinkle, description))

    async def add_style(self, id: str, example: Upload) -> StyleCard:
        """See `Talker.add_style`."""
        return await self._result(calls.add_style(id, example))

    async def delete_style(self, id: str) -> None:
        """See `Talker.delete_style`."""
        await self._result(calls.delete_style(id))

    async def templates(self) -> list[TemplateCard]:
        """See `Talker.templates`."""
        return await self._result(calls.templates())

    async def template(self, id: str) -> TemplateCard:
        """See `Talker.template`."""
        return await self._result(calls.template(id))

    async def add_template(
        self,
        mesh: Upload,
        *,
        name: str | None = None,
        texture: Upload | None = None,
        landmarks: Upload | Mapping[str, Any] | None = None,
    ) -> TemplateCard:
        """See `Talker.add_template`."""
        return await self._result(calls.add_template(mesh, name, texture, landmarks))

    async def delete_template(self, id: str) -> None:
        """See `Talker.delete_template`."""
        await self._result(calls.delete_template(id))

    async def template_mesh(self, id: str) -> "AsyncDownload":
        """See `Talker.template_mesh`."""
        return AsyncDownload(self._wire, await self._answered(calls.template_mesh(id)))

    async def template_preview(self, id: str) -> "AsyncDownload":
        """See `Talker.template_preview`."""
        return AsyncDownload(self._wire, await self._answered(calls.template_preview(id)))

    async def upsample(
        self,
        size: int,
        *,
        map: Upload | None = None,
        texture: Upload | None = None,
        neutral: Upload | None = None,
        guide: Upload | None = None,
        media_type: str = "image/png",
    ) -> "AsyncDownload":
        """See `Talker.upsample`."""
        pictures = {"map": map, "texture": texture, "neutral": neutral, "guide": guide}
        return AsyncDownload(self._wire, await self._answered(calls.upsample(size, pictures, media_type)))

    async def info(self) -> InfoCard:
        """See `Talker.info`."""
        return await self._result(calls.info())

    async def ready(self) -> bool:
        """See `Talker.ready`."""
        try:
            await self._wire.run(flows.result(calls.ready(), 0))
        except TalkerBusy:
            return False
        return True

    async def submit(self, audio: Upload, **fields: Unpack[AnimateFields]) -> "AsyncJob":
        """See `Talker.submit`."""
        return AsyncJob(self._wire, await self._result(calls.submit(audio, fields)), self._retries)

    async def job(self, id: str) -> "AsyncJob":
        """See `Talker.job`."""
        return AsyncJob(self._wire, await self._result(calls.job(id)), self._retries)

    async def jobs(self) -> list["AsyncJob"]:
        """See `Talker.jobs`."""
        return [AsyncJob(self._wire, card, self._retries) for card in await self._result(calls.jobs())]

    async def close(self) -> None:
        """See `Talker.close`."""
        await self._client.aclose()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.close()

    async def _answered(self, call: Call[Any]) -> Answer:
        return await self._wire.run(flows.answered(call, self._retries))

    async def _result(self, call: Call[T]) -> T:
        return await self._wire.run(flows.result(call, self._retries))


class AsyncDownload(Received):
    """A file on its way; see `Download`."""

    def __init__(self, wire: AsyncWire, answer: Answer) -> None:
        super().__init__(answer)
        self._wire = wire

    async def __aiter__(self) -> AsyncIterator[bytes]:
        while (chunk := await self._wire.run(flows.one(Next(self._answer.chunks)))) is not None:
            yield chunk

    async def read(self) -> bytes:
        """See `Download.read`."""
        return await self._wire.run(flows.everything(self._answer))

    async def save(self, path: str | PathLike[str]) -> Path:
        """See `Download.save`."""
        return await self._wire.run(flows.saved(self._answer, Path(path)))

    async def close(self) -> None:
        """See `Download.close`."""
        await self._answer.close()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.close()


class AsyncAnimation(AsyncDownload):
    """An animation on its way."""

    async def frames(self) -> tuple[FramesHeader, AsyncIterator[FramesChunk]]:
        """See `Animation.frames`. The reader waits in a worker thread, for what this loop reads."""
        rest = Rest(lambda: from_thread.run(self._more))
        header, chunks = await to_thread.run_sync(read_frames, rest)
        return header, _each(chunks)

    async def _more(self) -> bytes:
        return await self._wire.run(flows.one(Next(self._answer.chunks))) or b""


async def _each(chunks: Iterator[FramesChunk]) -> AsyncIterator[FramesChunk]:
    while (chunk := await to_thread.run_sync(next, chunks, None)) is not None:
        yield chunk


class AsyncJob(JobFacts):
    """A job, as it stood when it was last asked for."""

    def __init__(self, wire: AsyncWire, card: JobCard, retries: int) -> None:
        super().__init__(card)
        self._wire = wire
        self._retries = retries

    async def refresh(self) -> Self:
        """See `Job.refresh`."""
        self.card = await self._wire.run(flows.result(calls.job(self.id), self._retries))
        return self

    async def wait(self, progress: Callable[[JobCard], None] = flows.ignore) -> Self:
        """See `Job.wait`."""
        self.card = await self._wire.run(flows.followed(self.id, progress, self._retries))
        return self

    async def result(self, path: str | PathLike[str]) -> Path:
        """See `Job.result`."""
        return await self._wire.run(flows.fetched(self.id, Path(path), self._retries))

    async def cancel(self) -> None:
        """See `Job.cancel`."""
        await self._wire.run(flows.result(calls.cancel(self.id), self._retries))
