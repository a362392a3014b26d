"""What one animation takes: the time of the engine and of the encoder, told apart though they take turns."""

from collections.abc import Callable, Generator
from dataclasses import replace
from time import perf_counter
from typing import Any, TypeVar

from opentelemetry.trace import Span

from models.core import Clip
from service.encoders import Encoder, encode
from service.metrics import Metrics
from service.traces import tracer

Item = TypeVar("Item")


class Timed(Generator[Item, None, None]):
    """A generator, and the time spent in it. `first` is called once, before the first item leaves, `done` when it is
    closed.
    """

    def __init__(
        self, inner: Generator[Item, None, None], *, first: Callable[[], None] = lambda: None, done: Callable[[], None]
    ) -> None:
        self._inner, self._first, self._done = inner, first, done
        self.seconds, self.count = 0.0, 0

    def send(self, value: None) -> Item:
        """The next item."""
        started = perf_counter()
        try:
            item = self._inner.send(value)
        finally:
            self.seconds += perf_counter() - started
        if self.count == 0:
            self._first()
        self.count += 1
        return item

    def throw(self, *error: Any) -> Item:
        """Raise within."""
        return self._inner.throw(*error)

    def close(self) -> None:
        """Close it, once."""
        self._inner.close()
        done, self._done = self._done, lambda: None
        done()


class Meter:
    """Measures one clip: ask for `clip` and `encode` in place of the clip and of `encode`."""

    def __init__(self, clip: Clip, metrics: Metrics, arrived_s: float) -> None:
        self._metrics, self._arrived_s, self._source = metrics, arrived_s, clip
        self._span = tracer.start_span("animate", attributes={"engine": clip.engine})
        self._performed = Timed(clip.frames, first=self._first_frame, done=self._end_frames)
        self.clip = replace(clip, frames=self._performed)
        if clip.codes is not None:
            self._codes = Timed(clip.codes.batches, first=self._first_frame, done=lambda: None)
            self.clip = replace(self.clip, codes=replace(clip.codes, batches=self._codes))

    def encode(self, clip: Clip, encoder: Encoder) -> Generator[bytes, None, None]:
        """As `service.encoders.encode`; the figures are noted when it is closed."""
        span = tracer.start_span("encode", attributes={"format": encoder.name})
        chunks = Timed(encode(clip, encoder), done=lambda: self._note(chunks.seconds, span))
        return chunks

    def _first_frame(self) -> None:
        seconds = perf_counter() - self._arrived_s
        self._metrics.first_frame_seconds.labels(self._source.engine).observe(seconds)

    def _end_frames(self) -> None:
        self._span.set_attributes({"frames": self._performed.count, "seconds": self._performed.seconds})
        self._span.end()

    def _note(self, seconds: float, span: Span) -> None:
        """`seconds` of the encoder, the engine's among them."""
        codes_s = 0.0 if self._source.codes is None else self._codes.seconds
        engine_s, frames = self._performed.seconds + codes_s, self._performed.count
        self._metrics.stage_seconds.labels("engine").observe(engine_s)
        self._metrics.stage_seconds.labels("encode").observe(seconds - engine_s)
        self._metrics.frames.labels(self._source.engine).inc(frames)
        if frames:
            factor = seconds * self._source.fps / frames
            self._metrics.real_time_factor.labels(self._source.engine).observe(factor)
        span.set_attribute("seconds", seconds - engine_s)
        span.end()
