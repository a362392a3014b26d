"""What Prometheus reads at `GET /metrics`: requests, the queue, frames and how fast they come, memory."""

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from time import perf_counter

from prometheus_client import CONTENT_TYPE_LATEST, CollectorRegistry, Counter, Histogram, ProcessCollector
from prometheus_client import generate_latest as render
from prometheus_client.core import GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from service.traces import tracer

MEDIA_TYPE = CONTENT_TYPE_LATEST
SECONDS = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 300)
FACTORS = (0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 0.75, 1, 1.5, 2, 5, 10)

Readings = Mapping[str, float]


class Metrics:
    """The numbers of one process, in a registry of its own."""

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        ProcessCollector(registry=self.registry)
        self.requests = self._counter("requests", "Requests that were answered", "route", "method", "status")
        self.request_seconds = self._histogram("request_seconds", "From a request's arrival to its last byte", "route")
        self.queue_seconds = self._histogram("queue_seconds", "How long requests waited for their slot")
        self.first_frame_seconds = self._histogram(
            "first_frame_seconds", "From a request's arrival to its first frame", "engine"
        )
        self.stage_seconds = self._histogram("stage_seconds", "Work on one animation, by stage", "stage")
        self.real_time_factor = self._histogram(
            "real_time_factor", "Seconds of work on a second of animation", "engine", buckets=FACTORS
        )
        self.frames = self._counter("frames", "Frames made", "engine")
        self.streams_cut = self._counter("streams_cut", "Answers that did not reach their end, and why", "reason")

    def _counter(self, name: str, documentation: str, *labels: str) -> Counter:
        return Counter(f"talker_{name}", documentation, labels, registry=self.registry)

    def _histogram(
        self, name: str, documentation: str, *labels: str, buckets: tuple[float, ...] = SECONDS
    ) -> Histogram:
        return Histogram(f"talker_{name}", documentation, labels, registry=self.registry, buckets=buckets)

    @contextmanager
    def stage(self, name: str) -> Iterator[None]:
        """Time what happens within as a stage of an animation, and trace it."""
        started = perf_counter()
        with tracer.start_as_current_span(name):
            yield
        self.stage_seconds.labels(name).observe(perf_counter() - started)

    def watch(self, name: str, documentation: str, read: Callable[[], float]) -> None:
        """Show a number as it is whenever somebody looks: `read` is quick, and called in any thread."""
        self.registry.register(_Gauges(lambda: {f"talker_{name}": read()}, documentation))

    def watch_all(self, prefix: str, documentation: str, read: Callable[[], Readings]) -> None:
        """Show numbers whose names are not known before, as `talker_{prefix}_{name}`."""
        self.registry.register(
            _Gauges(lambda: {f"talker_{prefix}_{name}": value for name, value in read().items()}, documentation)
        )

    def watch_by(self, name: str, documentation: str, label: str, read: Callable[[], Readings]) -> None:
        """Show a number for each value of a label, such as jobs by their state."""
        self.registry.register(_LabelledGauge(f"talker_{name}", documentation, label, read))

    def render(self) -> bytes:
        """Everything, in Prometheus' text format."""
        return render(self.registry)


class _Gauges(Collector):
    """Numbers that are read when they are asked for."""

    def __init__(self, read: Callable[[], Readings], documentation: str) -> None:
        self._read, self._documentation = read, documentation

    def collect(self) -> Iterator[Metric]:
        for name, value in self._read().items():
            yield GaugeMetricFamily(name, self._documentation, value)

    def describe(self) -> list[Metric]:
        return []


class _LabelledGauge(Collector):
    """Such numbers under one name."""

    def __init__(self, name: str, documentation: str, label: str, read: Callable[[], Readings]) -> None:
        self._name, self._documentation, self._label, self._read = name, documentation, label, read

    def collect(self) -> Iterator[Metric]:
        family = GaugeMetricFamily(self._name, self._documentation, labels=[self._label])
        for value, number in self._read().items():
            family.add_metric([value], number)
        yield family

    def describe(self) -> list[Metric]:
        return []
