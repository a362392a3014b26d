"""Audio is decoded in processes of their own: a file that crashes the decoder, hangs it or eats its memory is refused.

FFmpeg is C, and what it reads comes from strangers. A worker gets the upload as a descriptor that it can only read, and
gives back samples or a refusal, as bytes and JSON: nothing that it says is executed. It may have so much memory, write
no file, and take so long; the kernel's own timer ends it, whatever holds the interpreter's lock.

    request ─ descriptor ─► worker ─ header, samples ─► Waveform | InputError | (it died) UnsupportedMedia

Workers are forked by multiprocessing's fork server, which has the decoder loaded and runs no thread: a crashed one is
replaced in milliseconds, and the kernel ends them with that server, which ends with this process.
"""

import ctypes
import json
import logging
import os
import resource
import signal
import traceback
from collections import deque
from collections.abc import Callable
from contextlib import suppress
from multiprocessing import get_context
from multiprocessing.connection import Connection
from multiprocessing.reduction import recv_handle, send_handle
from pathlib import Path
from typing import Any, BinaryIO, TypeAlias

import numpy as np

from models.audio import AudioLimits, decode_audio
from models.core import SAMPLE_RATE_HZ, Waveform, frame_count
from models.errors import InputError, MalformedInput, TooLarge, UnsupportedMedia

log = logging.getLogger(__name__)

Decode: TypeAlias = Callable[[BinaryIO, AudioLimits], Waveform]

MEMORY_BYTES = 1 << 30
"""What a worker may allocate beside the samples; none of the formats that are taken came to a tenth of it."""
COPIES = 4
"""Of the samples, at most: the array that grows, its older self, what is clipped, what is sent."""
PATIENCE_S, PATIENCE = 10.0, 0.05
"""How long a file may take, and how much longer for each second of the longest audio; it decodes 100 times as fast."""
GRACE_S = 5.0
"""After which a worker that should be dead is killed."""
LAST_WORDS_S = 0.2
"""For a worker to end by itself, so that its exit code tells of what."""
MAX_HEADER_BYTES, MAX_FAILURE = 1 << 16, 4000
REFUSALS: dict[str, type[InputError]] = {cls.__name__: cls for cls in (MalformedInput, TooLarge, UnsupportedMedia)}
"""What `decode_audio` raises."""
PR_SET_PDEATHSIG, PR_SET_NO_NEW_PRIVS = 1, 38


class Isolation:
    """Workers that decode: as many as are asked at once. `decode` is `decode_audio`, behind a wall; for any thread."""

    def __init__(self, max_seconds: float, decode: Decode = decode_audio, *, patience_s: float = PATIENCE_S) -> None:
        self._decode = decode
        self._samples = frame_count(max_seconds, SAMPLE_RATE_HZ) + 1
        self._deadline_s = patience_s + PATIENCE * max_seconds
        self._context = get_context("forkserver")
        self._context.set_forkserver_preload([__name__])
        self._idle: deque[_Worker] = deque()

    def warm_up(self) -> None:
        """Start a worker, so that no request pays for the first."""
        self._idle.append(self._start())

    def decode(self, file: BinaryIO, limits: AudioLimits) -> Waveform:
        """See `decode_audio`, of a file that has a descriptor. UnsupportedMedia (decoder_failed) besides, where the
        worker died of the file.
        """
        worker = self._take()
        try:
            answer = worker.ask(file, limits)
        except (EOFError, OSError, ValueError) as error:
            exit_code = worker.kill()
            log.warning("a decoder failed on what was uploaded: %s (exit code %s)", str(error).strip(), exit_code)
            raise UnsupportedMedia(
                "audio that breaks its decoder; wanted a sound file; export it again, as wav or flac",
                field="audio",
                code="decoder_failed",
            ) from error
        self._idle.append(worker)
        if isinstance(answer, InputError):
            raise answer
        return answer

    def close(self) -> None:
        """End the workers that do nothing."""
        while self._idle:
            self._idle.pop().kill()

    def _take(self) -> "_Worker":
        """One that waits, else a new one."""
        with suppress(IndexError):
            while True:
                if (worker := self._idle.pop()).process.is_alive():
                    return worker
                worker.kill()
        return self._start()

    def _start(self) -> "_Worker":
        memory_bytes = MEMORY_BYTES + COPIES * 4 * self._samples
        connection, theirs = self._context.Pipe()
        with theirs:
            process = self._context.Process(
                target=_serve, args=(theirs, self._decode, memory_bytes, self._deadline_s), daemon=True
            )
            process.start()
        return _Worker(process, connection, self._samples, self._deadline_s)


class _Worker:
    """The near end of a worker."""

    def __init__(self, process: Any, connection: Any, samples: int, deadline_s: float) -> None:
        self.process, self._connection = process, connection
        self._samples, self._patience_s = samples, deadline_s + GRACE_S

    def ask(self, file: BinaryIO, limits: AudioLimits) -> Waveform | InputError:
        """What decodes, or why nothing does. EOFError, OSError or ValueError where the worker failed, perhaps with the
        words that it left.
        """
        file.flush()
        descriptor = os.open(f"/proc/self/fd/{file.fileno()}", os.O_RDONLY)  # its own place, and no way to write
        try:
            self._connection.send_bytes(json.dumps([limits.max_bytes, limits.max_seconds]).encode())
            send_handle(self._connection, descriptor, self.process.pid)
        finally:
            os.close(descriptor)
        if not self._connection.poll(self._patience_s):
            raise EOFError("it hangs")
        header = json.loads(self._connection.recv_bytes(MAX_HEADER_BYTES))
        if "failure" in header:
            raise ValueError(header["failure"])
        return self._refusal(**header) if "refusal" in header else self._waveform(**header)

    def _refusal(self, refusal: str, message: str, field: str | None, code: str) -> InputError:
        return REFUSALS[refusal](message, field=field, code=code)

    def _waveform(self, count: int, source_s: float | None) -> Waveform:
        if not 0 <= count <= self._samples:
            raise ValueError(count)
        samples = np.empty(count, np.float32)
        self._connection.recv_bytes_into(samples.data)
        return Waveform(samples, source_s)

    def kill(self) -> int | None:
        """End the process, whatever it does, and wait for that; returns its exit code."""
        self._connection.close()
        self.process.join(LAST_WORDS_S)
        self.process.kill()
        self.process.join()
        exit_code: int | None = self.process.exitcode
        self.process.close()
        return exit_code


def _serve(connection: "Connection", decode: Decode, memory_bytes: int, deadline_s: float) -> None:
    """The worker: decodes what it is sent, until the other end is gone."""
    _close_others(connection.fileno())
    _confine(memory_bytes)
    with suppress(EOFError, ConnectionError):
        while True:
            limits = AudioLimits(*json.loads(connection.recv_bytes()))
            with open(recv_handle(connection), "rb") as file:
                signal.setitimer(signal.ITIMER_REAL, deadline_s)
                _answer(connection, decode, file, limits)
                signal.setitimer(signal.ITIMER_REAL, 0)


def _answer(connection: "Connection", decode: Decode, file: BinaryIO, limits: AudioLimits) -> None:
    try:
        waveform = decode(file, limits)
    except InputError as error:
        refusal = {"refusal": type(error).__name__, "message": str(error), "field": error.field, "code": error.code}
        connection.send_bytes(json.dumps(refusal).encode())
    except Exception:  # a bug of ours, or no memory: it must be in the log of the service
        connection.send_bytes(json.dumps({"failure": traceback.format_exc()[-MAX_FAILURE:]}).encode())
    else:
        header = {"count": waveform.samples.size, "source_s": waveform.source_s}
        connection.send_bytes(json.dumps(header).encode())
        connection.send_bytes(waveform.samples.data)


def _close_others(kept: int) -> None:
    """Close what this process inherited: the fork server stays for as long as one of its children may still ask it.
    Nobody hears what FFmpeg and PyAV say.
    """
    with open(os.devnull, "w") as nowhere:
        for standard in (1, 2):
            os.dup2(nowhere.fileno(), standard)
    os.closerange(3, kept)
    os.closerange(kept + 1, resource.getrlimit(resource.RLIMIT_NOFILE)[0])


def _confine(memory_bytes: int) -> None:
    """Bound what this process may do, and tie its life to that of the process that forked it."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is for the service, which lets running requests end
    signal.signal(signal.SIGALRM, signal.SIG_DFL)
    prctl = ctypes.CDLL(None).prctl
    prctl(PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)
    prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0)
    in_use = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
    for limit, value in (
        (resource.RLIMIT_AS, in_use + memory_bytes),
        (resource.RLIMIT_FSIZE, 0),
        (resource.RLIMIT_CORE, 0),
    ):
        resource.setrlimit(limit, (value, value))
