"""One loop owns the device: what streams ask of the networks runs there, and what waits together runs as one batch.

A stream is a generator in a thread of its own, and has one call under way at most. The loop takes the call that has
waited longest and, with it, every other one of the same function, up to `batch` of them: while the device is busy calls
gather, and when it frees up a batch closes. Nothing waits for company, and no stream overtakes another.

Batches are padded to one fixed shape, so that what a call gives does not depend on who came with it.
"""

from collections import deque
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Future
from dataclasses import dataclass, replace
from threading import Condition, Thread
from time import perf_counter
from typing import TypeAlias

import torch
from torch import Tensor

from models.errors import EngineClosed

Tensors: TypeAlias = tuple[Tensor, ...]
Function: TypeAlias = Callable[..., Tensors]


@dataclass(frozen=True)
class Axes:
    """Along which axis of each input, and of each output, a function's rows lie. Rows know nothing of each other."""

    inputs: tuple[int, ...]
    outputs: tuple[int, ...]


@dataclass(frozen=True)
class FunctionStatistics:
    """What a loop has run of one function."""

    calls: int = 0
    batches: int = 0
    seconds: float = 0.0
    """How long the device was busy with it."""

    @property
    def calls_per_batch(self) -> float:
        """How many calls ran at once, on the average."""
        return self.calls / self.batches if self.batches else 0.0


@dataclass(frozen=True, eq=False)
class _Compiled:
    """A function on the device. Without axes its calls run one by one."""

    name: str
    run: Function
    axes: Axes | None


@dataclass(frozen=True, eq=False)
class _Call:
    compiled: _Compiled
    inputs: Tensors
    outputs: "Future[Tensors]"


class EngineLoop:
    """The thread that runs compiled functions; it starts with the first call, and ends with `close`."""

    def __init__(self, batch: int = 1) -> None:
        self.batch = batch
        """How many calls run at once, at most."""
        self._waiting = deque[_Call]()
        self._changed = Condition()
        self._thread: Thread | None = None
        self._closed = False
        self._statistics = dict[str, FunctionStatistics]()

    def function(self, name: str, run: Function, axes: Axes | None) -> Function:
        """`run`, called in the loop's thread. With axes it is given the rows of `batch` calls, one after the other
        along each axis, those of the last over again where fewer came.

        Raises what `run` raises, in every call of the batch, and EngineClosed once the loop is closed.
        """
        compiled = _Compiled(name, run, axes)
        return lambda *inputs: self._submit(_Call(compiled, inputs, Future())).result()

    def statistics(self) -> Mapping[str, FunctionStatistics]:
        """What has run so far, by function."""
        with self._changed:
            return dict(self._statistics)

    def close(self) -> None:
        """Refuse calls from now on, those that wait among them, and return when the device is idle."""
        with self._changed:
            self._closed, thread = True, self._thread
            refused = list(self._waiting)
            self._waiting.clear()
            self._changed.notify()
        for call in refused:
            call.outputs.set_exception(_closed())
        if thread is not None:
            thread.join()

    def _submit(self, call: _Call) -> "Future[Tensors]":
        with self._changed:
            if self._closed:
                raise _closed()
            if self._thread is None:
                self._thread = Thread(target=self._serve, name="engine", daemon=True)
                self._thread.start()
            self._waiting.append(call)
            self._changed.notify()
        return call.outputs

    def _serve(self) -> None:
        while calls := self._next():
            started = perf_counter()
            try:
                results = self._run(calls)
            except Exception as error:  # it is the callers', whatever it is
                for call in calls:
                    call.outputs.set_exception(error)
            else:
                self._count(calls, perf_counter() - started)
                for call, outputs in zip(calls, results, strict=True):
                    call.outputs.set_result(outputs)
            del calls

    def _next(self) -> list[_Call]:
        """The next batch; none once the loop is closed."""
        with self._changed:
            self._changed.wait_for(lambda: self._waiting or self._closed)
            if self._closed:
                return []
            compiled = self._waiting[0].compiled
            most = self.batch if compiled.axes else 1
            calls = [call for call in self._waiting if call.compiled is compiled][:most]
            for call in calls:
                self._waiting.remove(call)
            return calls

    def _run(self, calls: Sequence[_Call]) -> list[Tensors]:
        compiled = calls[0].compiled
        if compiled.axes is None or self.batch == 1:
            return [compiled.run(*calls[0].inputs)]
        rows = [call.inputs for call in calls]
        outputs = compiled.run(*stack(rows + rows[-1:] * (self.batch - len(rows)), compiled.axes.inputs))
        return split(outputs, compiled.axes.outputs, self.batch)[: len(calls)]

    def _count(self, calls: Sequence[_Call], seconds: float) -> None:
        name = calls[0].compiled.name
        with self._changed:
            past = self._statistics.get(name, FunctionStatistics())
            self._statistics[name] = replace(
                past, calls=past.calls + len(calls), batches=past.batches + 1, seconds=past.seconds + seconds
            )


def stack(rows: Sequence[Tensors], axes: Sequence[int]) -> Tensors:
    """Tensors of several calls as those of one."""
    return tuple(torch.cat(parts, axis) for parts, axis in zip(zip(*rows, strict=True), axes, strict=True))


def split(stacked: Tensors, axes: Sequence[int], count: int) -> list[Tensors]:
    """The tensors of each of `count` calls, copied: a stream that keeps its own must not keep those of others."""
    parts = (tensor.chunk(count, axis) for tensor, axis in zip(stacked, axes, strict=True))
    return [
        tuple(part.clone(memory_format=torch.contiguous_format) for part in row) for row in zip(*parts, strict=True)
    ]


def _closed() -> EngineClosed:
    return EngineClosed("the engine is closed; wanted one that is open: open another")
