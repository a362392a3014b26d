"""What any sound file becomes, and which files are refused."""

import contextlib
import io
import math
import struct
import tempfile
import tracemalloc
from collections.abc import Callable
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from models import audio
from models.audio import AudioLimits, decode_audio
from models.core import Waveform, frame_count
from models.errors import InputError, MalformedInput, TooLarge, UnsupportedMedia

LIMITS = AudioLimits(max_bytes=100_000_000, max_seconds=600)

# name: (format, codec, sample format, muxer options)
LOSSLESS = {
    "wav": ("wav", "pcm_s16le", "s16", {}),
    "flac": ("flac", "flac", "s16", {}),
    "ogg flac": ("ogg", "flac", "s16", {}),
    "aiff": ("aiff", "pcm_s16be", "s16", {}),
    "caf": ("caf", "pcm_s16be", "s16", {}),
    "caf alac": ("caf", "alac", "s16p", {}),
    "m4a alac": ("ipod", "alac", "s16p", {}),
    "mov": ("mov", "pcm_s16le", "s16", {}),
    "matroska": ("matroska", "pcm_s16le", "s16", {}),
}
LOSSY = {
    "mp3": ("mp3", "libmp3lame", "fltp", {}),
    "mp3 without LAME's tag": ("mp3", "libmp3lame", "fltp", {"write_xing": "0"}),
    "m4a": ("ipod", "aac", "fltp", {}),
    "mp4 in fragments": ("mp4", "aac", "fltp", {"movflags": "frag_keyframe+empty_moov"}),
    "mp4 in many fragments": ("mp4", "aac", "fltp", {"movflags": "frag_every_frame+empty_moov"}),
    "adts": ("adts", "aac", "fltp", {}),
    "matroska aac": ("matroska", "aac", "fltp", {}),
    "ogg opus": ("ogg", "libopus", "s16", {}),
    "webm opus": ("webm", "libopus", "s16", {}),
    "webm without a length": ("webm", "libopus", "s16", {"live": "1"}),
}
KINDS = LOSSLESS | LOSSY


def encode(samples: np.ndarray, rate_hz: int, kind: str, packet: int = 4096) -> bytes:
    """A sound file of (n,) or (channels, n) samples."""
    container_format, codec, sample_format, options = KINDS[kind]
    channels = np.atleast_2d(samples).astype(np.float32)
    layout = {1: "mono", 2: "stereo", 6: "5.1", 8: "7.1"}[len(channels)]
    whole = av.AudioFrame.from_ndarray(channels.T.reshape(1, -1).copy(), format="flt", layout=layout)
    whole.sample_rate = rate_hz
    queue = av.AudioFifo()
    converter = av.AudioResampler(format=sample_format, layout=layout, rate=rate_hz)
    for frame in converter.resample(whole):
        frame.pts = None
        queue.write(frame)
    file = io.BytesIO()
    with av.open(file, "w", format=container_format, options=options) as container:
        stream = container.add_stream(codec, rate=rate_hz, layout=layout, format=sample_format)
        time = 0
        while frame := queue.read(stream.codec_context.frame_size or packet, partial=True):
            frame.pts, frame.time_base = time, Fraction(1, rate_hz)
            time += frame.samples
            container.mux(stream.encode(frame))
        container.mux(stream.encode(None))
    return file.getvalue()


def wav(data: np.ndarray | bytes, rate_hz: int = 16_000, *, channels: int = 1, bits: int = 32, tag: int = 3) -> bytes:
    """A RIFF file around raw samples; the default is 32-bit float."""
    body = data if isinstance(data, bytes) else data.tobytes()
    frame = channels * bits // 8
    header = struct.pack("<4sIHHIIHH", b"fmt ", 16, tag, channels, rate_hz, rate_hz * frame % 2**32, frame, bits)
    chunks = header + struct.pack("<4sI", b"data", len(body)) + body
    return struct.pack("<4sI4s", b"RIFF", 4 + len(chunks), b"WAVE") + chunks


def break_fragment(file: bytes, after: int) -> bytes:
    """The file with the first fragment past that byte claiming that its samples lie at a negative offset."""
    offset = file.index(b"tfhd", after) + 12
    return file[:offset] + b"\xff" * 4 + file[offset + 4 :]


def floats(*values: float) -> np.ndarray:
    return np.array(values, "<f4")


def burst(rate_hz: int, *, at_s: float = 1.0, duration_s: float = 2.0) -> np.ndarray:
    """40 ms of a 440 Hz tone around `at_s`, in silence."""
    time = np.arange(round(duration_s * rate_hz)) / rate_hz - at_s
    return 0.8 * np.cos(2 * np.pi * 440 * time) * np.cos(np.pi * time / 0.04) ** 2 * (abs(time) < 0.02)


def delay(waveform: Waveform, reference: np.ndarray) -> int:
    """By how many samples the waveform is later than the reference."""
    size = 2 * max(waveform.samples.size, reference.size)
    spectra = np.fft.rfft(waveform.samples, size) * np.fft.rfft(reference, size).conj()
    lag = int(np.fft.irfft(spectra).argmax())
    return lag if lag < size // 2 else lag - size


def noise(seconds: float, rate_hz: int, channels: int = 1) -> np.ndarray:
    return np.random.default_rng(0).uniform(-0.3, 0.3, (channels, round(seconds * rate_hz)))


# What a file becomes


@pytest.mark.parametrize("rate_hz", [8_000, 16_000, 44_100, 48_000, 96_000])
@pytest.mark.parametrize("kind", LOSSLESS)
def test_lossless_audio_keeps_its_time_and_length(kind: str, rate_hz: int) -> None:
    waveform = decode_audio(encode(burst(rate_hz), rate_hz, kind), LIMITS)
    assert waveform.samples.size == 32_000
    assert delay(waveform, burst(16_000)) == 0
    np.testing.assert_allclose(waveform.samples, burst(16_000), atol=2e-3)


@pytest.mark.parametrize("rate_hz", [8_000, 11_025, 16_000, 44_100, 48_000, 96_000])
@pytest.mark.parametrize("at_s", [0.0, 0.25, 0.9999])
def test_a_click_stays_where_it_is(rate_hz: int, at_s: float) -> None:
    click = np.zeros(rate_hz, np.float32)
    click[int(at_s * rate_hz)] = 1
    waveform = decode_audio(wav(click, rate_hz), LIMITS)
    assert abs(int(waveform.samples.argmax()) - int(at_s * rate_hz) * 16_000 / rate_hz) <= 1


@pytest.mark.parametrize("rate_hz", [16_000, 48_000])
@pytest.mark.parametrize("kind", LOSSY)
def test_lossy_audio_keeps_its_time_and_length_but_for_padding(kind: str, rate_hz: int) -> None:
    """Also where the container does not tell how late the encoder made it."""
    waveform = decode_audio(encode(burst(rate_hz), rate_hz, kind), LIMITS)
    assert delay(waveform, burst(16_000)) == 0
    assert 32_000 <= waveform.samples.size <= 32_000 + audio.MAX_PADDING_S * 16_000
    assert abs(waveform.samples[:32_000] - burst(16_000)).max() < 0.1


@pytest.mark.parametrize("kind", ["mp3", "m4a", "ogg opus", "webm opus"])
def test_lossy_audio_whose_container_declares_the_end_has_its_exact_length(kind: str) -> None:
    """MP4 declares it in milliseconds."""
    assert decode_audio(encode(noise(1.234, 48_000), 48_000, kind), LIMITS).samples.size == 19_744


def test_the_same_samples_in_any_lossless_container_are_the_same_waveform() -> None:
    """Bit for bit, though their packets are of different lengths."""
    samples = noise(1, 44_100, channels=2)
    expected = decode_audio(encode(samples, 44_100, "wav"), LIMITS).samples
    for kind in LOSSLESS:
        np.testing.assert_array_equal(
            decode_audio(encode(samples, 44_100, kind), LIMITS).samples, expected, err_msg=kind
        )


def test_a_declared_length_of_nothing_is_not_believed() -> None:
    file = encode(burst(48_000, at_s=0.05, duration_s=0.1), 48_000, "m4a alac")
    duration = file.index(b"mdhd") + 20
    assert decode_audio(file[:duration] + bytes(4) + file[duration + 4 :], LIMITS).samples.size == 1_600


def test_a_length_that_is_only_estimated_cuts_nothing_off() -> None:
    """FFmpeg takes these 235 packets of 1024 samples for 0.05 s less, by their bit rate."""
    assert decode_audio(encode(noise(5, 48_000), 48_000, "adts"), LIMITS).duration_s == 235 * 1024 / 48_000


@pytest.mark.parametrize("rate_hz", [8_000, 11_025, 22_050, 44_056, 44_100, 48_000, 192_000])
@pytest.mark.parametrize("count", [1, 9, 1_001, 12_347])
def test_the_duration_is_the_files_and_the_samples_cover_it(rate_hz: int, count: int) -> None:
    waveform = decode_audio(wav(np.zeros(count, np.float32), rate_hz), LIMITS)
    assert waveform.duration_s == count / rate_hz
    assert waveform.samples.size == math.ceil(Fraction(count * 16_000, rate_hz))


@pytest.mark.parametrize("rate_hz", [16_000, 22_050, 24_000, 44_100, 48_000, 96_000])
def test_whole_frames_of_sound_are_as_many_frames(rate_hz: int) -> None:
    """One sample less is as many too; one more is one frame more."""
    period = math.lcm(rate_hz, 30) // rate_hz
    for frames in range(period, 61, period):
        count = frames * rate_hz // 30
        for samples, expected in ((count - 1, frames), (count, frames), (count + 1, frames + 1)):
            duration_s = decode_audio(wav(np.zeros(samples, np.float32), rate_hz), LIMITS).duration_s
            assert frame_count(duration_s, 30) == expected, (samples, frames)


@pytest.mark.parametrize("kind", LOSSLESS)
def test_whole_frames_are_whole_in_any_lossless_container(kind: str) -> None:
    """2,940 samples at 44.1 kHz are 1066.7 at 16 kHz: rounded, they would reach into a third frame."""
    for frames in range(1, 17):
        waveform = decode_audio(encode(np.zeros(1_470 * frames), 44_100, kind), LIMITS)
        assert frame_count(waveform.duration_s, 30) == frames


@pytest.mark.parametrize("kind", ["mp3", "ogg opus", "webm opus"])
def test_whole_frames_are_whole_where_a_lossy_container_declares_the_end(kind: str) -> None:
    for frames in range(1, 17):
        waveform = decode_audio(encode(np.zeros(1_600 * frames), 48_000, kind), LIMITS)
        assert frame_count(waveform.duration_s, 30) == frames


@pytest.mark.parametrize(("size", "source_s"), [(100, 99 / 16_000), (100, 100.01 / 16_000), (0, 1e-6), (1, 0.0)])
def test_samples_that_do_not_cover_their_duration_are_refused(size: int, source_s: float) -> None:
    with pytest.raises(MalformedInput, match=f"{size} samples for .* s of sound; wanted .*; cut both alike") as refusal:
        Waveform(np.zeros(size, np.float32), source_s)
    assert refusal.value.field == "audio"


def test_mono_at_16_khz_passes_unchanged() -> None:
    samples = noise(1, 16_000)[0].astype(np.float32)
    np.testing.assert_array_equal(decode_audio(wav(samples), LIMITS).samples, samples)


def test_resampling_keeps_speech_and_drops_what_16_khz_cannot_hold() -> None:
    time = np.arange(48_000) / 48_000
    low, high = (np.sin(2 * np.pi * frequency * time).astype(np.float32) for frequency in (1_000, 11_000))
    middle = slice(1_000, -1_000)
    expected = np.sin(2 * np.pi * 1_000 * np.arange(16_000) / 16_000)
    np.testing.assert_allclose(decode_audio(wav(low, 48_000), LIMITS).samples[middle], expected[middle], atol=1e-4)
    assert abs(decode_audio(wav(high, 48_000), LIMITS).samples[middle]).max() < 1e-3


@pytest.mark.parametrize(
    ("tag", "bits", "half"),
    [
        (1, 8, b"\xc0"),
        (1, 16, b"\x00\x40"),
        (1, 24, b"\x00\x00\x40"),
        (1, 32, b"\x00\x00\x00\x40"),
        (1, 64, bytes(7) + b"\x40"),
        (3, 32, struct.pack("<f", 0.5)),
        (3, 64, struct.pack("<d", 0.5)),
    ],
)
def test_every_sample_type_is_scaled_by_its_range(tag: int, bits: int, half: bytes) -> None:
    np.testing.assert_array_equal(decode_audio(wav(100 * half, bits=bits, tag=tag), LIMITS).samples, 0.5)


@pytest.mark.parametrize("channels", [2, 3, 6, 7, 64])
def test_channels_are_averaged_with_equal_weights(channels: int) -> None:
    for channel in range(channels):
        frame = np.zeros(channels, "<f4")
        frame[channel] = 0.6
        samples = decode_audio(wav(np.tile(frame, 100), channels=channels), LIMITS).samples
        np.testing.assert_allclose(samples, 0.6 / channels, rtol=1e-6)


@pytest.mark.parametrize("channels", [1, 2, 3, 6, 8, 64])
def test_full_scale_on_every_channel_is_full_scale(channels: int) -> None:
    samples = decode_audio(wav(np.ones(500 * channels, "<f4"), 48_000, channels=channels), LIMITS).samples
    np.testing.assert_allclose(samples, 1, rtol=1e-5)


@pytest.mark.parametrize("kind", ["m4a", "ogg opus"])
def test_eight_planar_channels_decode(kind: str) -> None:
    """PyAV 18 crashes the process if such a frame is asked for its samples."""
    waveform = decode_audio(encode(np.tile(burst(48_000), (8, 1)), 48_000, kind), LIMITS)
    assert delay(waveform, burst(16_000)) == 0


def test_samples_beyond_full_scale_are_clipped_before_they_are_averaged() -> None:
    np.testing.assert_array_equal(decode_audio(wav(floats(3, -1e30)), LIMITS).samples, [1, -1])
    np.testing.assert_array_equal(decode_audio(wav(floats(3, -1), channels=2), LIMITS).samples, 0)


def test_a_resampled_square_stays_within_full_scale() -> None:
    square = np.sign(np.sin(np.arange(44_100) / 40)).astype(np.float32)
    assert abs(decode_audio(wav(square, 44_100), LIMITS).samples).max() == 1


@pytest.mark.parametrize("rate_hz", [44_100, 48_000])
def test_rate_and_channels_may_change_within_a_file(rate_hz: int) -> None:
    first, second = encode(burst(rate_hz), rate_hz, "adts"), encode(np.tile(burst(48_000), (2, 1)), 48_000, "adts")
    samples = decode_audio(first + second, LIMITS).samples
    lengths = [decode_audio(part, LIMITS).samples.size for part in (first, second)]
    assert abs(samples.size - sum(lengths) - 1_024 / 3) <= 2  # the second part's encoder delay lies in the middle
    assert delay(Waveform(samples[lengths[0] :]), burst(16_000)) in range(340, 343)


@pytest.mark.parametrize("max_size", [0, 1_000])
def test_a_spooled_upload_is_read_in_place_and_left_open(max_size: int) -> None:
    with tempfile.SpooledTemporaryFile(max_size=max_size) as file:
        file.write(encode(burst(48_000), 48_000, "m4a"))
        assert decode_audio(file, LIMITS).samples.size == 32_000
        assert not file.closed


def test_tags_in_an_unknown_alphabet_do_no_harm() -> None:
    tags = b"INFOINAM" + struct.pack("<I", 4) + b"\xe9\xff\xfe\x00"
    file = wav(floats(0.5)) + struct.pack("<4sI", b"LIST", len(tags)) + tags
    assert decode_audio(file, LIMITS).samples.size == 1


# Limits


@pytest.mark.parametrize("kind", ["flac", "mp3", "m4a"])
def test_exactly_the_longest_duration_passes(kind: str) -> None:
    file = encode(np.zeros(8_000 * 600), 8_000, kind)
    assert decode_audio(file, LIMITS).duration_s == 600


def test_longer_than_the_limit_is_refused_with_the_number_and_the_limit() -> None:
    with pytest.raises(TooLarge, match=r"600\.1\d s .* 600 s") as refusal:
        decode_audio(encode(np.zeros(8_000 * 601), 8_000, "flac"), LIMITS)
    assert refusal.value.field == "audio"


@pytest.mark.parametrize("excess_s", [1 / 16_000, 0.1, 1])
def test_any_excess_is_refused(excess_s: float) -> None:
    file = wav(np.zeros(round(16_000 * (1 + excess_s)), np.float32))
    with pytest.raises(TooLarge):
        decode_audio(file, AudioLimits(LIMITS.max_bytes, 1))


def test_decoding_stops_at_the_limit() -> None:
    """What lies beyond is never looked at: NaN would be another refusal."""
    file = wav(np.concatenate([np.zeros(32_000, np.float32), np.full(32_000, np.nan, np.float32)]))
    with pytest.raises(TooLarge):
        decode_audio(file, AudioLimits(LIMITS.max_bytes, 1))


def test_what_is_decoded_counts_not_what_the_header_declares() -> None:
    whole = bytearray(wav(np.zeros(16_000, np.float32)))
    whole[40:44] = struct.pack("<I", 2**31)
    assert decode_audio(bytes(whole), AudioLimits(LIMITS.max_bytes, 1)).duration_s == 1


@pytest.mark.parametrize("wrap", [bytes, io.BytesIO])
def test_more_bytes_than_the_limit_are_refused(wrap: Callable[[bytes], bytes | io.BytesIO]) -> None:
    file = wav(np.zeros(1_000, np.float32))
    assert decode_audio(wrap(file), AudioLimits(len(file), 600)).samples.size == 1_000
    with pytest.raises(TooLarge, match=f"{len(file)} bytes; wanted at most {len(file) - 1}") as refusal:
        decode_audio(wrap(file), AudioLimits(len(file) - 1, 600))
    assert refusal.value.field == "audio"


def test_memory_is_that_of_the_result() -> None:
    """30 s of six channels at 96 kHz are 69 MB as floats, and 1.9 MB as a waveform."""
    file = encode(np.zeros((6, 30 * 96_000)), 96_000, "flac")
    tracemalloc.start()
    try:
        waveform = decode_audio(file, LIMITS)
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert peak < 3 * waveform.samples.nbytes


def test_a_packet_that_unfolds_beyond_measure_is_not_decoded() -> None:
    longest = audio.MAX_FRAME_SAMPLES
    fits, unfolds = (encode(np.zeros(count), 16_000, "matroska", packet=count) for count in (longest, longest + 1))
    assert decode_audio(fits, LIMITS).samples.size == longest
    with pytest.raises(UnsupportedMedia):
        decode_audio(unfolds, LIMITS)


# Refusals


def video_only() -> bytes:
    file = io.BytesIO()
    with av.open(file, "w", format="mp4") as container:
        stream = container.add_stream("mpeg4", rate=25)
        stream.width = stream.height = 32
        stream.pix_fmt = "yuv420p"
        for _ in range(3):
            container.mux(stream.encode(av.VideoFrame(32, 32, "yuv420p")))
        container.mux(stream.encode(None))
    return file.getvalue()


def image(image_format: str) -> bytes:
    file = io.BytesIO()
    Image.new("RGB", (32, 32)).save(file, image_format)
    return file.getvalue()


@pytest.mark.parametrize(
    "file",
    [
        pytest.param(b"Hello, this is a text that somebody named .wav.\n" * 100, id="text"),
        pytest.param(np.random.default_rng(0).bytes(10_000), id="random bytes"),
        pytest.param(bytes(10_000), id="zeros"),
        pytest.param(b"RIFF", id="four bytes"),
        pytest.param(image("PNG"), id="png"),
        pytest.param(image("JPEG"), id="jpeg"),
        pytest.param(image("GIF"), id="gif"),
        pytest.param(video_only(), id="mp4 without sound"),
        pytest.param(b"#EXTM3U\n#EXT-X-TARGETDURATION:1\n#EXTINF:1,\nfile:///etc/passwd\n", id="playlist"),
        pytest.param(b".snd" + struct.pack(">5I", 24, 200, 3, 16_000, 1) + bytes(200), id="a format not offered"),
        pytest.param(b"ffconcat version 1.0\nfile /etc/passwd\n", id="concatenation"),
        pytest.param(wav(np.zeros(6_500, "<i2"), channels=65, bits=16, tag=1), id="65 channels"),
        pytest.param(
            encode(burst(48_000), 48_000, "m4a alac").replace(b"alac", b"ac-4"), id="a codec that nothing here decodes"
        ),
    ],
)
def test_what_is_not_audio_is_refused(file: bytes) -> None:
    with pytest.raises(UnsupportedMedia, match=r"; wanted wav, flac, mp3") as refusal:
        decode_audio(file, LIMITS)
    assert (refusal.value.field, refusal.value.code) == ("audio", "not_audio")


@pytest.mark.parametrize(
    "file",
    [
        pytest.param(b"", id="no bytes"),
        pytest.param(wav(b""), id="no samples"),
        pytest.param(break_fragment(encode(burst(48_000), 48_000, "mp4 in many fragments"), 0), id="nothing found"),
    ],
)
def test_audio_without_a_sample_is_refused(file: bytes) -> None:
    with pytest.raises(UnsupportedMedia) as refusal:
        decode_audio(file, LIMITS)
    assert (refusal.value.field, refusal.value.code) == ("audio", "empty_audio")


@pytest.mark.parametrize("rate_hz", [8_000, 16_000, 48_000])
@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("bits", [32, 64])
def test_one_sample_that_is_not_finite_is_refused(value: float, rate_hz: int, bits: int) -> None:
    """In any channel, at any rate: the average of infinity and silence is no number either."""
    samples = np.zeros((10_000, 2), f"<f{bits // 8}")
    samples[5_000, 1] = value
    with pytest.raises(MalformedInput) as refusal:
        decode_audio(wav(samples, rate_hz, channels=2, bits=bits), LIMITS)
    assert (refusal.value.field, refusal.value.code) == ("audio", "not_finite")


@pytest.mark.parametrize("chunk", [b"chan", b"info"])
def test_a_size_beyond_what_files_can_have_is_refused(tmp_path: Path, chunk: bytes) -> None:
    """Of a file on disk, where the system refuses to seek there, as of one in memory."""
    whole = encode(burst(48_000), 48_000, "caf")
    start = whole.index(chunk) + 4
    forged = whole[:start] + struct.pack(">Q", 1 << 62) + whole[start + 8 :]
    (tmp_path / "forged.caf").write_bytes(forged)
    for file in (io.BytesIO(forged), (tmp_path / "forged.caf").open("rb")):
        with file, pytest.raises(UnsupportedMedia):
            decode_audio(file, LIMITS)


@pytest.mark.parametrize("rate_hz", [1, 999, 768_001, 2_000_000_000])
def test_an_absurd_rate_is_refused(rate_hz: int) -> None:
    with pytest.raises(UnsupportedMedia, match=f"{rate_hz} Hz; wanted 1000 to 768000 Hz") as refusal:
        decode_audio(wav(np.zeros(100, "<i2"), rate_hz, bits=16, tag=1), LIMITS)
    assert refusal.value.field == "audio"


@pytest.mark.parametrize("rate_hz", [audio.MIN_RATE_HZ, audio.MAX_RATE_HZ])
def test_the_extreme_rates_decode(rate_hz: int) -> None:
    assert decode_audio(wav(np.zeros(rate_hz, np.float32), rate_hz), LIMITS).duration_s == 1


# Damage


def spoil(file: bytes, start: float, end: float) -> bytes:
    """The file with the bytes between two fractions of its length overwritten."""
    first, last = int(start * len(file)), int(end * len(file))
    return file[:first] + b"\xff" * (last - first) + file[last:]


def test_an_mp3_that_breaks_off_gives_what_decodes() -> None:
    whole = encode(burst(44_100, at_s=0.5), 44_100, "mp3")
    waveform = decode_audio(whole[: len(whole) // 2 + 5], LIMITS)
    assert 0.8 < waveform.duration_s < 1.2
    assert delay(waveform, burst(16_000, at_s=0.5)) == 0


def test_what_follows_a_broken_fragment_is_lost_and_no_more() -> None:
    file = encode(burst(48_000, at_s=0.5), 48_000, "mp4 in many fragments")
    waveform = decode_audio(break_fragment(file, len(file) // 2), LIMITS)
    assert 0.6 < waveform.duration_s < 1.5
    assert delay(waveform, burst(16_000, at_s=0.5)) == 0


def test_an_mp3_that_breaks_off_in_its_first_frame_is_refused() -> None:
    with pytest.raises(UnsupportedMedia):
        decode_audio(encode(burst(44_100), 44_100, "mp3")[:100], LIMITS)


def test_a_few_damaged_packets_are_skipped(capfd: pytest.CaptureFixture[str]) -> None:
    """Without a word on the terminal."""
    damaged = spoil(encode(noise(4, 16_000) + burst(16_000, duration_s=4), 16_000, "m4a"), 0.6, 0.65)
    waveform = decode_audio(damaged, LIMITS)
    assert 3 < waveform.duration_s <= 4
    assert delay(Waveform(waveform.samples[:24_000]), burst(16_000)) == 0
    assert capfd.readouterr() == ("", "")


def test_many_damaged_packets_are_refused() -> None:
    with pytest.raises(UnsupportedMedia, match="100 damaged packets") as refusal:
        decode_audio(spoil(encode(noise(20, 16_000), 16_000, "m4a"), 0.1, 0.9), LIMITS)
    assert (refusal.value.field, refusal.value.code) == ("audio", "damaged_audio")


FILES = [encode(noise(0.2, 48_000, channels=2), 48_000, kind) for kind in KINDS]
Edit = tuple[float, int, bytes]
EDIT = st.tuples(st.floats(0, 1), st.integers(0, 40), st.binary(max_size=20))


@settings(max_examples=500, deadline=None, derandomize=True)
@given(st.sampled_from(FILES), st.lists(EDIT, max_size=10), st.floats(0.01, 1))
def test_a_mutilated_file_decodes_or_is_refused(file: bytes, edits: list[Edit], kept: float) -> None:
    """Nothing but an InputError comes out, whatever was overwritten, cut out, put in or cut off."""
    for position, removed, inserted in edits:
        start = int(position**3 * len(file))  # mostly in the headers
        file = file[:start] + inserted + file[start + removed :]
    with contextlib.suppress(InputError):
        decode_audio(file[: int(kept * len(file))], AudioLimits(10_000_000, 5))
