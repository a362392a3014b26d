"""Bytes to Waveform: whatever holds speech becomes mono at 16 kHz.

    file ─ demux ─► packets ─ decode ─► frames ─ average ─► mono blocks ─ resample ─► Waveform

Everything between the file and the result is a generator of short pieces, so memory is that of the result however
long the file claims to be, and decoding stops where a limit is passed. Integer samples are scaled by their type's
range. Channels are averaged, each with the same weight (swresample's own down-mix drops the LFE channel and can exceed
full scale). What lies outside -1..1 is clipped, as a sound card would.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from io import SEEK_END, SEEK_SET, BytesIO
from itertools import chain, groupby
from operator import itemgetter
from typing import BinaryIO

import av
import numpy as np
from av.codec.context import Flags2
from av.container import InputContainer
from jaxtyping import Float32

from models.core import SAMPLE_RATE_HZ, Waveform, frame_count
from models.errors import MalformedInput, TooLarge, UnsupportedMedia

Samples = Float32[np.ndarray, " samples"]
Block = tuple[int, Samples]
"""A rate in Hz, and mono samples at that rate."""

# Files only: none of these formats opens another file by itself, and the empty protocol list forbids it to all.
DEMUXER_OPTIONS = {"format_whitelist": "aac,aiff,caf,flac,matroska,mov,mp3,ogg,wav", "protocol_whitelist": ""}

MIN_RATE_HZ, MAX_RATE_HZ = 1_000, 768_000
"""The resampling filter grows with the rate: a header that claims 2 GHz would ask for gigabytes."""

REACH = 20
"""Samples, of the slower rate, that the resampler's filter reaches ahead, and some."""

MAX_FRAME_SAMPLES = 1 << 18
"""The longest that a codec makes itself is FLAC's, 65,535; a kilobyte of forged ALAC would unfold to 16 million."""

MAX_DAMAGED_PACKETS = 100

MAX_PADDING_S = 0.15
"""Lossy codecs fill up their last packet: 1024 samples of AAC at 8 kHz are 0.128 s."""

ENCODER_DELAY = {"aac": 1024, "mp3": 1105}
"""Samples that an encoder puts before the speech. MP4's edit list, Matroska's CodecDelay or LAME's tag tells FFmpeg to
drop them; where nothing does (ADTS, fragmented MP4, bare MP3) these are FFmpeg's and LAME's own."""


@dataclass(frozen=True)
class AudioLimits:
    """What one file may cost: its size, and the length of the audio in it."""

    max_bytes: int
    max_seconds: float


def decode_audio(file: bytes | BinaryIO, limits: AudioLimits) -> Waveform:
    """Decode the first audio stream of wav, flac, mp3, ogg, opus, m4a, aac, webm, aiff or caf, up to 64 channels.

    A seekable file is read where it lies, and left open. The result has the file's own duration, and the samples
    at 16 kHz that cover it; a sound stays at its time. A file that breaks off, or holds a few damaged packets, gives
    what decodes.

    Refuses, all with field "audio": more bytes or seconds than `limits` (TooLarge), samples that are NaN or infinite
    (MalformedInput, not_finite), and what is no audio (UnsupportedMedia: not_audio, damaged_audio, empty_audio).
    """
    if isinstance(file, bytes):
        file = BytesIO(file)
    size = _checked_bytes(file, limits.max_bytes)
    try:
        with av.open(_Readable(file, size), mode="r", options=DEMUXER_OPTIONS, metadata_errors="replace") as container:
            waveform = _decode(container, limits.max_seconds)
    except av.FFmpegError as error:
        raise _not_audio(f"a file that does not decode ({error.strerror})") from error
    if not waveform.samples.size:
        raise UnsupportedMedia(
            "audio of which no sample decodes; wanted speech; record it again", field="audio", code="empty_audio"
        )
    return waveform


class _Readable:
    """The file for PyAV. Forged sizes make FFmpeg seek to where the system knows no file can reach; it would raise."""

    def __init__(self, file: BinaryIO, size: int) -> None:
        self.read, self.tell = file.read, file.tell
        self._seek, self._size = file.seek, size

    def seek(self, offset: int, whence: int = SEEK_SET) -> int:
        """Seek, to the end for what is past it."""
        return self._seek(min(offset, self._size) if whence == SEEK_SET else offset, whence)


def _checked_bytes(file: BinaryIO, max_bytes: int) -> int:
    """The file's size, in bytes; it is then read from its beginning."""
    size = file.seek(0, SEEK_END)
    file.seek(0)
    if size == 0:
        raise UnsupportedMedia("an empty file; wanted speech; choose another", field="audio", code="empty_audio")
    if size > max_bytes:
        raise TooLarge(
            f"audio of {size} bytes; wanted at most {max_bytes}; shorten it, or compress it (opus, mp3)", field="audio"
        )
    return size


def _decode(container: InputContainer, max_seconds: float) -> Waveform:
    """The first audio stream, perhaps of no sample."""
    stream = _audio_stream(container)
    packets = _packets(container, stream)
    first = next(packets, None)
    if first is None:
        return Waveform(np.zeros(0, np.float32))
    blocks = _skip(_mono(_frames(chain([first], packets))), _encoder_delay(first, stream))
    waveform = _trim_padding(_resample(_limit(blocks, max_seconds)), container, stream)
    if waveform.samples.size > frame_count(max_seconds, SAMPLE_RATE_HZ):
        raise _too_long(waveform.duration_s, max_seconds)
    return waveform


def _audio_stream(container: InputContainer) -> av.AudioStream:
    stream = next(iter(container.streams.audio), None)
    if stream is None:
        raise _not_audio(f"{container.format.long_name} without an audio stream")
    if stream.codec_context is None:
        raise _not_audio(f"{container.format.long_name} with a codec that nothing here decodes")
    stream.codec_context.options = {"max_samples": str(MAX_FRAME_SAMPLES)}
    if stream.codec_context.name == "alac":  # its last packet is short by itself; a CAF's tail would be cut off twice
        stream.codec_context.flags2 |= Flags2.skip_manual
    return stream


def _packets(container: InputContainer, stream: av.AudioStream) -> Iterator["av.Packet[av.AudioStream]"]:
    """The stream's packets. Where the container's structure breaks, nothing after it can be found: that is the end."""
    try:
        yield from container.demux(stream)
    except av.FFmpegError:
        return


def _frames(packets: Iterator["av.Packet[av.AudioStream]"]) -> Iterator[av.AudioFrame]:
    """What the packets decode to, without those that are damaged."""
    damaged = 0
    for packet in packets:
        try:
            yield from packet.decode()
        except av.FFmpegError as error:
            damaged += 1
            if damaged > MAX_DAMAGED_PACKETS:
                raise UnsupportedMedia(
                    f"audio with more than {MAX_DAMAGED_PACKETS} damaged packets; wanted a sound file; export it again",
                    field="audio",
                    code="damaged_audio",
                ) from error


def _mono(frames: Iterator[av.AudioFrame]) -> Iterator[Block]:
    """The average of the channels. Format, channels and rate may change on the way."""
    for (rate_hz, *_), alike in groupby(
        frames, key=lambda frame: (frame.sample_rate, frame.format.name, frame.layout.name)
    ):
        if not MIN_RATE_HZ <= rate_hz <= MAX_RATE_HZ:
            raise UnsupportedMedia(
                f"audio at {rate_hz} Hz; wanted {MIN_RATE_HZ} to {MAX_RATE_HZ} Hz; resample it", field="audio"
            )
        # PyAV 18 reads past the planes of a planar frame of 8 channels (to_ndarray crashes): pack them first.
        packer = av.AudioResampler(format="flt")
        for packed in chain.from_iterable(map(packer.resample, alike)):
            yield rate_hz, _average_channels(packed)


def _average_channels(packed: av.AudioFrame) -> Samples:
    """The mean of the channels, each clipped to -1..1. Refuses what is not finite: past the resampler it is smeared."""
    samples = packed.to_ndarray().reshape(-1, packed.layout.nb_channels)
    if not np.isfinite(samples).all():
        raise MalformedInput(
            "audio with samples that are NaN or infinite; wanted finite ones; export it again",
            field="audio",
            code="not_finite",
        )
    mono: Samples = samples.clip(-1, 1).mean(axis=1, dtype=np.float32)
    return mono


def _encoder_delay(first: "av.Packet[av.AudioStream]", stream: av.AudioStream) -> int:
    """Samples before the speech that FFmpeg will not drop by itself."""
    if first.has_sidedata("skip_samples"):
        return 0
    return ENCODER_DELAY.get(stream.codec_context.codec.canonical_name, 0)


def _skip(blocks: Iterator[Block], count: int) -> Iterator[Block]:
    """The blocks without their first `count` samples."""
    for rate_hz, samples in blocks:
        yield rate_hz, samples[count:]
        count = max(0, count - samples.size)


def _limit(blocks: Iterator[Block], max_seconds: float) -> Iterator[Block]:
    """The blocks, up to the limit. A duration that a header declares may be false: what is decoded counts.

    The codec's padding is allowed for here, and measured when it is cut off.
    """
    seconds = 0.0
    for rate_hz, samples in blocks:
        seconds += samples.size / rate_hz
        if seconds > max_seconds + MAX_PADDING_S:
            raise _too_long(seconds, max_seconds)
        yield rate_hz, samples


def _resample(blocks: Iterator[Block]) -> Waveform:
    """The blocks at 16 kHz, without delay: the samples that cover them, and how long they were."""
    speech, duration_s = bytearray(), 0.0
    for rate_hz, alike in groupby(blocks, key=itemgetter(0)):
        resampler = Resampler(rate_hz)
        count = 0
        for _, samples in alike:
            count += samples.size
            speech.extend(resampler.push(samples).tobytes())
        speech.extend(resampler.flush().tobytes())
        duration_s += count / rate_hz
        wanted = 4 * frame_count(duration_s, SAMPLE_RATE_HZ)
        del speech[wanted:]
        speech.extend(bytes(wanted - len(speech)))  # the filter may owe the last; shorter than it, all
    return Waveform(np.frombuffer(speech, np.float32), duration_s)


class Resampler:
    """Mono samples of one rate → 16 kHz, piece by piece, without delay; however they are cut, the same."""

    def __init__(self, rate_hz: int) -> None:
        self._rate_hz = rate_hz
        self._filter = av.AudioResampler(format="flt", layout="mono", rate=SAMPLE_RATE_HZ)

    @property
    def delay_s(self) -> float:
        """Seconds of sound after a sample that must be there before it is."""
        return 0.0 if self._rate_hz == SAMPLE_RATE_HZ else REACH / min(self._rate_hz, SAMPLE_RATE_HZ)

    def push(self, samples: Samples) -> Samples:
        """What `samples` complete."""
        if not samples.size:
            return samples
        frame = av.AudioFrame.from_ndarray(samples[None], format="flt", layout="mono")
        frame.sample_rate = self._rate_hz
        return self._run(frame)

    def flush(self) -> Samples:
        """What is left at the end; a sample more or less than the duration asks for."""
        return self._run(None)

    def _run(self, frame: av.AudioFrame | None) -> Samples:
        pieces = [piece.to_ndarray().ravel() for piece in self._filter.resample(frame)]
        samples: Samples = np.concatenate(pieces) if pieces else np.zeros(0, np.float32)
        return samples.clip(-1, 1)  # the filter overshoots at edges


def _trim_padding(waveform: Waveform, container: InputContainer, stream: av.AudioStream) -> Waveform:
    """Drop the codec's padding at the end. Only MP4 declares where the speech in its last packet ends."""
    if not stream.duration or stream.time_base is None or "mp4" not in container.format.name:
        return waveform
    end_s = float(stream.duration * stream.time_base)
    if not 0 <= waveform.duration_s - end_s < MAX_PADDING_S:
        return waveform
    return Waveform(waveform.samples[: frame_count(end_s, SAMPLE_RATE_HZ)], end_s)


def _too_long(seconds: float, max_seconds: float) -> TooLarge:
    return TooLarge(
        f"audio of {seconds:.2f} s or more; wanted at most {max_seconds:g} s; cut it into parts", field="audio"
    )


def _not_audio(what: str) -> UnsupportedMedia:
    wanted = "wanted wav, flac, mp3, ogg, opus, m4a, aac, webm, aiff or caf; convert it"
    return UnsupportedMedia(f"{what}; {wanted}", field="audio", code="not_audio")
