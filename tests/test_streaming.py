"""The laws of the stream: cut anywhere, the frames are the same, and as many as the sound is long."""

import math
from collections.abc import Sequence
from dataclasses import replace
from fractions import Fraction
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from tiny import (
    CONFIG,
    TORCH,
    WEIGHTS,
    noise,
    shipped_head,
    shipped_network,
    speech,
    tiny_encoder,
    tiny_head,
    tiny_motion,
    tiny_speech,
    tiny_style,
)
from tiny_engine import SHA256, a_style, save_weights, tiny_engine

from models.checkpoint import pin, read_manifest
from models.compact_encoder import HOP, WINDOW, CompactEncoder, PowerSpectrum, mel_filters
from models.core import SAMPLE_RATE_HZ, AnimateOptions, Clip, Waveform, frame_count
from models.engine import CHECKPOINTS, ENGINES, LocalEngine, load_engine, open_networks
from models.errors import CheckpointError, UnknownName
from models.features import BLOCK, STRIDE, CompactSpeech
from models.mmtalker.blinks import BlinkTrack
from models.mmtalker.streaming import SurfaceQuery, interpolate, stream_motion
from models.performance import USUAL
from models.pivots import StyleBook
from models.textalker.autoencoder import SIZES, Autoencoder
from models.textalker.denoiser import Denoiser, DenoiserConfig
from models.textalker.upsampler import SIZES as UPSAMPLER_SIZES
from models.textalker.upsampler import Upsampler
from training.speech_encoder import hear

FPS = [1, 12.5, 23.976, 24, 29.97, 30, 59.94, 60, 120]
AWKWARD = [7, 159, 160, 161, 15_999, 16_000, 16_001]


class Spoken(NamedTuple):
    features: np.ndarray
    offsets: np.ndarray
    rim_offsets: np.ndarray
    contact: np.ndarray
    time_s: np.ndarray


def speak(pieces: Sequence[np.ndarray], fps: float = 30.0, seed: int = 0) -> Spoken:
    """What the tiny encoder and the tiny network make of a clip that comes in pieces, in some style."""
    encoder, motion, lids = tiny_speech(), tiny_motion(), BlinkTrack(seed)
    query = motion.query(tiny_head().atlas.vertex_anchors, tiny_head().rim_anchors)
    total = frame_count(sum(map(len, pieces)) / SAMPLE_RATE_HZ, fps)
    listening, moving, features, batches = encoder.start(), motion.start(tiny_style()), [], []
    for number, piece in enumerate(pieces):
        last = number == len(pieces) - 1
        heard, listening = encoder.step(listening, piece, last=last)
        features.append(heard)
        made, moving = motion.step(moving, heard, query, lids, fps, total if last else None)
        batches += made
    assert [batch.first for batch in batches] == np.cumsum([0, *(len(b.contact) for b in batches)])[:-1].tolist()
    columns = (np.concatenate([getattr(batch, name) for batch in batches]) for name in Spoken._fields[1:])
    return Spoken(torch.cat(features).numpy(), *columns)


def same(one: Spoken, two: Spoken) -> bool:
    return all(np.array_equal(a, b) for a, b in zip(one, two, strict=True))


def cut(samples: np.ndarray, size: int) -> list[np.ndarray]:
    return np.split(samples, range(size, len(samples), size))


# Law 1: one shot is the fold of the stream.


@pytest.mark.parametrize("size", AWKWARD)
def test_cut_anywhere_the_frames_are_the_same(size):
    samples = noise(40_037)
    assert same(speak(cut(samples, size)), speak([samples]))


def test_cut_into_single_samples_the_frames_are_the_same():
    samples = noise(27_000)
    assert same(speak(cut(samples, 1)), speak([samples]))


@given(st.lists(st.integers(0, 60_000), max_size=12), st.sampled_from(FPS))
@settings(deadline=None, max_examples=25)
def test_cut_at_random_the_frames_are_the_same(cuts, fps):
    """Empty pieces too, the last one among them."""
    samples = noise(60_000)
    assert same(speak(np.split(samples, sorted(cuts)), fps), speak([samples], fps))


@pytest.mark.parametrize("count", [1, 159, 319, 320, 321, 640, 16_000, 16_001, 25_000, 32_000, 48_000])
def test_clips_of_any_length_have_a_feature_every_20_ms(count):
    """A single sample, less than a block, exactly n features, exactly n blocks."""
    spoken = speak(cut(noise(count), 5_000))
    assert len(spoken.features) == -(-count // STRIDE)
    assert len(spoken.contact) == frame_count(count / SAMPLE_RATE_HZ, 30.0)
    assert all(np.isfinite(part).all() for part in spoken)


def test_no_sound_is_no_frame():
    lids = BlinkTrack(0)
    assert list(stream_motion(tiny_speech(), tiny_motion(), speech(0), tiny_query(), lids, 30.0, tiny_style())) == []


def tiny_query() -> SurfaceQuery:
    return tiny_motion().query(tiny_head().atlas.vertex_anchors, tiny_head().rim_anchors)


def test_a_feature_depends_on_a_bounded_stretch_of_sound():
    """Sound before `past` and after `future` of a block changes nothing in it; a little nearer, it does."""
    encoder, samples = tiny_speech(), noise(10 * SAMPLE_RATE_HZ)
    block = slice(6 * BLOCK, 7 * BLOCK)
    first, end = 6 * SAMPLE_RATE_HZ - encoder.past, 7 * SAMPLE_RATE_HZ + encoder.future

    def features(change: slice) -> torch.Tensor:
        changed = samples.copy()
        changed[change] = np.roll(changed, 999)[change]
        return encoder.step(encoder.start(), changed, last=True)[0][block]

    whole = features(slice(0, 0))
    assert first > 0
    assert torch.equal(features(slice(0, first)), whole)
    assert torch.equal(features(slice(end, None)), whole)
    assert not torch.equal(features(slice(0, first + SAMPLE_RATE_HZ)), whole)
    assert not torch.equal(features(slice(end - SAMPLE_RATE_HZ // 4, None)), whole)


def test_a_feature_comes_once_its_lookahead_has_come():
    encoder, samples = tiny_speech(), noise(2 * SAMPLE_RATE_HZ)
    needed = SAMPLE_RATE_HZ + round(encoder.lookahead_s * SAMPLE_RATE_HZ)
    early, _ = encoder.step(encoder.start(), samples[: needed - 1], last=False)
    in_time, _ = encoder.step(encoder.start(), samples[:needed], last=False)
    assert (len(early), len(in_time)) == (0, BLOCK)


def as_trained(encoder: CompactEncoder, samples: np.ndarray) -> torch.Tensor:
    """Features of a whole clip, as training computes them."""
    padded = torch.from_numpy(np.pad(samples, WINDOW // 2))[None]
    power = PowerSpectrum()(padded)[0, : len(samples) // HOP]
    with torch.inference_mode():
        return hear(encoder, power @ torch.from_numpy(mel_filters()))


@pytest.mark.parametrize("size", ["tiny", "compact"])
def test_blocks_hear_what_the_whole_clip_hears(size):
    """Receptive fields are counted right, features are where training puts them, and silence is before the first."""
    torch.manual_seed(0)
    encoder = tiny_encoder() if size == "tiny" else CompactEncoder().eval()
    speech, samples = CompactSpeech(encoder, TORCH), noise(8 * SAMPLE_RATE_HZ)
    blocks = speech.step(speech.start(), samples, last=True)[0]
    assert (blocks - as_trained(encoder, samples)).abs().max() < 1e-4


def test_spectra_are_centred_on_their_hop():
    """Frame i on sample i · HOP of what follows the first half window; a full-scale tone has power 1 in its bin."""
    samples = torch.zeros(1, 20 * HOP)
    samples[0, WINDOW // 2 + 7 * HOP] = 1
    assert PowerSpectrum()(samples)[0].sum(1).argmax() == 7
    tone = torch.cos(2 * math.pi * 32 / 512 * torch.arange(20 * HOP))[None]
    assert PowerSpectrum()(tone)[0, :, 32] == pytest.approx(1, abs=1e-3)


def test_what_is_between_two_features_is_mixed_linearly():
    values = torch.tensor([[0.0, 10.0], [1.0, 20.0], [4.0, 0.0]])
    position = torch.tensor([-3.0, 0.0, 0.25, 1.5, 2.0, 9.0])
    expected = [[0, 10], [0, 10], [0.25, 12.5], [2.5, 10], [4, 0], [4, 0]]
    assert interpolate(values, position).tolist() == expected
    assert interpolate(values[:1], position).tolist() == [[0, 10]] * 6


@pytest.mark.parametrize("fps", [1, 30])
def test_states_stay_small_however_long_the_clip(fps):
    """A minute: sound for one block, features for one batch of frames and two seconds."""
    encoder, motion, query, lids = tiny_speech(), tiny_motion(), tiny_query(), BlinkTrack(0)
    listening, moving = encoder.start(), motion.start(tiny_style())
    sound, rows = encoder.past + encoder.future + SAMPLE_RATE_HZ, 50 * (USUAL.batch / fps + 2)
    for second in range(60):
        features, listening = encoder.step(listening, noise(SAMPLE_RATE_HZ, second), last=False)
        _, moving = motion.step(moving, features, query, lids, fps, None)
        assert len(listening.samples) <= sound
        assert len(moving.pending) <= 2 * BLOCK
        assert len(moving.heard.contact) <= rows
        assert moving.heard.local.untyped_storage().nbytes() <= 2 * rows * CONFIG.channels * CONFIG.width * 4


# Law 6: frames cover the audio.


@given(st.integers(0, 5_000_000), st.sampled_from(FPS))
def test_frames_cover_the_sound_and_no_more(count, fps):
    """The last frame begins before the sound ends, the next one would not."""
    assert frame_count(count / SAMPLE_RATE_HZ, fps) == math.ceil(Fraction(count, SAMPLE_RATE_HZ) * Fraction(str(fps)))


@pytest.mark.parametrize(
    ("seconds", "fps", "frames"), [(100, 29.97, 2997), (1000, 23.976, 23976), (0.1, 30, 3), (0.7, 10, 7)]
)
def test_a_product_that_is_whole_is_not_rounded_up(seconds, fps, frames):
    assert frame_count(seconds, fps) == frames


each_engine = pytest.mark.parametrize("engine", ENGINES)


@each_engine
@pytest.mark.parametrize("fps", FPS)
def test_frames_are_at_their_index_over_fps(fps, engine, talker):
    waveform = speech(1.37)
    clip = talker.animate(waveform, AnimateOptions(engine, fps=fps))
    frames = list(clip.frames)
    assert clip.frame_count == len(frames) == math.ceil(Fraction(len(waveform.samples), 16_000) * Fraction(str(fps)))
    assert [frame.index for frame in frames] == list(range(len(frames)))
    assert all(frame.time_s == frame.index / fps for frame in frames)


@each_engine
@pytest.mark.parametrize("fps", FPS)
@pytest.mark.parametrize(("count", "rate_hz"), [(1, 96_000), (2_940, 44_100), (2_941, 44_100), (44_101, 44_100)])
def test_frames_cover_the_source_not_what_it_was_resampled_to(count, rate_hz, fps, engine, talker):
    samples = noise(-(-count * SAMPLE_RATE_HZ // rate_hz))
    clip = talker.animate(Waveform(samples, count / rate_hz), AnimateOptions(engine, fps=fps))
    frames = vertices(clip)
    assert clip.frame_count == len(frames) == math.ceil(Fraction(count, rate_hz) * Fraction(str(fps)))
    assert np.isfinite(frames).all()


def test_frame_rates_agree_where_they_meet():
    """Every second frame at 60 is a frame at 30; every fifth at 120 one at 24."""
    samples = [noise(30_000)]
    for slow, fast in ((30, 60), (24, 120), (12.5, 100)):
        low, high = speak(samples, slow), speak(samples, fast)
        every = round(fast / slow)
        shared = min(len(low.offsets), len(high.offsets[::every]))
        assert np.abs(high.offsets[::every][:shared] - low.offsets[:shared]).max() < 1e-6


# The engine.


@pytest.fixture(scope="module")
def talker() -> LocalEngine:
    """Both engines on the tiny head, in torch."""
    return tiny_engine()


def vertices(clip: Clip) -> np.ndarray:
    return np.stack([frame.vertices for frame in clip.frames])


@each_engine
def test_a_clip_tells_what_it_is_before_the_first_frame(engine, talker):
    clip = talker.animate(speech(0.5), AnimateOptions(engine, seed=9))
    assert (clip.frame_count, clip.fps, clip.seed, clip.engine) == (15, 30.0, 9, engine)
    assert clip.checkpoints == SHA256
    assert np.array_equal(clip.mesh.vertices, tiny_head().atlas.vertices)


@each_engine
@pytest.mark.parametrize("resolution", [None, 600])
def test_the_same_request_gives_the_same_bytes(talker, engine, resolution):
    options = AnimateOptions(engine, resolution=resolution, seed=3)
    one, two = (talker.animate(speech(1.2), options) for _ in range(2))
    assert np.array_equal(one.mesh.vertices, two.mesh.vertices)
    assert vertices(one).tobytes() == vertices(two).tobytes()
    assert one.mesh.vertices.shape == (resolution or len(tiny_head().atlas.vertices), 3)


def test_clips_under_way_together_do_not_disturb_each_other(talker):
    """Two of each engine, frame by frame in turn."""

    def clips() -> list[Clip]:
        return [
            talker.animate(speech(1.2, seed), AnimateOptions(engine, seed=seed))
            for seed in (1, 2)
            for engine in ENGINES
        ]

    apart = [vertices(clip) for clip in clips()]
    together = zip(*(clip.frames for clip in clips()), strict=True)
    for number, frames in enumerate(together):
        for alone, frame in zip(apart, frames, strict=True):
            assert np.array_equal(frame.vertices, alone[number])


@each_engine
def test_closing_a_clip_early_frees_the_engine(engine, talker):
    clip = talker.animate(speech(2.0), AnimateOptions(engine))
    first = next(clip.frames)
    clip.frames.close()
    assert list(clip.frames) == []
    assert np.array_equal(next(talker.animate(speech(2.0), AnimateOptions(engine)).frames).vertices, first.vertices)


@each_engine
def test_a_clip_closed_before_its_first_frame_makes_none(engine, talker):
    clip = talker.animate(speech(2.0), AnimateOptions(engine))
    clip.frames.close()
    assert list(clip.frames) == []


@pytest.mark.parametrize(
    ("kind", "field", "options", "template"),
    [
        ("engine", "engine", AnimateOptions(engine="nobody"), "default"),
        ("style", "motion_style", AnimateOptions(motion_style="nobody"), "default"),
        ("style", "wrinkle_style", AnimateOptions(wrinkle_style="nobody"), "default"),
        ("template", "template", AnimateOptions(), "nobody"),
    ],
)
def test_an_unknown_name_is_refused_before_any_frame(talker, kind, field, options, template):
    with pytest.raises(UnknownName, match=f"unknown {kind}") as refusal:
        talker.animate(speech(0.1), options, template=template)
    assert refusal.value.field == field
    assert refusal.value.code == f"unknown_{kind}"


@each_engine
def test_intensity_zero_is_the_template_bit_for_bit(engine, talker):
    moved = vertices(talker.animate(speech(0.6), AnimateOptions(engine, intensity=0.0)))
    assert np.array_equal(moved, np.broadcast_to(tiny_head().atlas.vertices, moved.shape))


@each_engine
def test_intensity_scales_the_motion(engine, talker):
    rest = tiny_head().atlas.vertices
    one, two = (vertices(talker.animate(speech(0.6), AnimateOptions(engine, intensity=i))) - rest for i in (1.0, 2.0))
    assert np.abs(one).max() > 1e-3
    assert np.abs(two - 2 * one).max() < 1e-7


def test_the_seed_acts_through_the_lids_alone(talker):
    """In MMTalker: where neither of two seeds blinks the frames are the same bytes; where one does they are not."""
    count = 120
    one, two = (vertices(talker.animate(speech(4.0), AnimateOptions(seed=seed))) for seed in (0, 1))
    closures = [BlinkTrack(seed).closure(np.arange(count) / 30) for seed in (0, 1)]
    open_both = (closures[0] == 0) & (closures[1] == 0)
    differ = (one != two).any((1, 2))
    assert 10 < open_both.sum() < count - 10
    assert np.array_equal(differ, ~open_both)


@each_engine
def test_an_untouched_vertex_is_the_templates(engine, talker):
    moved = vertices(talker.animate(speech(0.6), AnimateOptions(engine)))
    eye = tiny_head().part("eye_left")
    assert np.array_equal(moved[:, eye], np.broadcast_to(tiny_head().atlas.vertices[eye], moved[:, eye].shape))


def test_the_engine_describes_itself_without_giving_itself_away(talker):
    talker.describe()["engines"] = []
    assert talker.describe()["engines"] == list(ENGINES)
    assert list(talker.templates) == ["default"]


@each_engine
def test_warming_up_leaves_no_trace(engine, talker):
    before = vertices(talker.animate(speech(0.6), AnimateOptions(engine)))
    talker.warm_up()
    assert np.array_equal(vertices(talker.animate(speech(0.6), AnimateOptions(engine))), before)


# The shipped head, by ONNX.


@pytest.fixture(scope="module")
def untrained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder of weights: the shipped head with untrained networks of compact size."""
    head, mmtalker = shipped_head(), shipped_network()
    torch.manual_seed(0)
    sizes = {part: SIZES["compact"][part] for part in ("motion", "wrinkle")}
    motion, wrinkle = (config.latents for config in sizes.values())
    parts = {
        "speech": CompactEncoder(),
        "mmtalker": mmtalker,
        "textalker": Denoiser(DenoiserConfig(motion, wrinkle)),
        "textalker-upsampler": Upsampler(replace(UPSAMPLER_SIZES["compact"], atlas=head.atlas.fingerprint)),
    }
    for part, config in sizes.items():
        moving = mmtalker.surface.moving if part == "motion" else torch.arange(0)
        network = Autoencoder(replace(config, atlas=head.atlas.fingerprint, moving=len(moving)))
        network.moving.copy_(moving)
        parts[f"textalker-{part}"] = network
    styles = [a_style("neutral", 0, motion, wrinkle)]
    return save_weights(tmp_path_factory.mktemp("weights"), head, parts, styles)


@pytest.fixture(scope="module")
def shipped(untrained: Path, tmp_path_factory: pytest.TempPathFactory) -> LocalEngine:
    """The untrained engines through onnxruntime."""
    return load_engine(untrained, tmp_path_factory.mktemp("cache"), device="cpu", threads=1)


def test_an_engine_is_loaded_from_a_folder_of_weights(shipped):
    description = shipped.describe()
    assert description["checkpoints"].keys() == set(CHECKPOINTS)
    assert description["device"] == "cpu"
    assert "onnxruntime" in description["providers"][0]
    assert list(shipped.styles) == ["neutral"]


@pytest.fixture(scope="module")
def in_torch(untrained: Path, shipped: LocalEngine) -> LocalEngine:
    """The same networks without ONNX."""
    return LocalEngine(open_networks(untrained, TORCH), StyleBook(list(shipped.styles.values())), shipped.describe())


@each_engine
@pytest.mark.parametrize("resolution", [None, 2_000])
def test_onnx_animates_as_torch_does(shipped, in_torch, engine, resolution):
    """To a hundredth of a millimetre, natively and at points, of a motion of millimetres; in the first second."""
    options = AnimateOptions(engine, resolution=resolution)
    one, two = (vertices(each.animate(speech(0.7), options)) for each in (shipped, in_torch))
    assert np.abs(one - shipped.animate(speech(0.7), options).mesh.vertices).max() > 0.002
    assert np.abs(one - two).max() < 1e-5


def test_onnx_wrinkles_as_torch_does(shipped, in_torch):
    """To a bit or two of float16."""
    options = AnimateOptions("textalker", texture=512)
    one, two = (
        np.stack([frame.wrinkles.astype(float) for frame in each.animate(speech(0.7), options).frames])
        for each in (shipped, in_torch)
    )
    assert np.abs(one).max() > 0.05
    assert np.abs(one - two).max() < 1e-3


def test_onnx_animates_as_torch_does_beyond_the_first_second(shipped, in_torch):
    """AudioStream.start gives one tensor as hidden and as cell, and the export takes them for one input: 1.4 mm."""
    one, two = (vertices(engine.animate(speech(1.5), AnimateOptions())) for engine in (shipped, in_torch))
    assert np.abs(one - two).max() < 1e-5


@pytest.mark.parametrize("size", [7_001, 16_000])
def test_onnx_does_not_mind_where_sound_is_cut(shipped, size):
    """Bit for bit, on the shipped head."""
    encoder, motion, waveform = shipped._networks.encoder, shipped._networks.motion, speech(1.9)
    query = motion.query(shipped_head().atlas.vertex_anchors, shipped_head().rim_anchors)
    whole = np.stack([f.vertices for f in shipped.animate(waveform, AnimateOptions()).frames])
    template, made = shipped.templates["default"], []
    style = motion.style_of(shipped.styles["neutral"].motion)
    listening, moving, lids = encoder.start(), motion.start(style), BlinkTrack(0)
    pieces = cut(waveform.samples, size)
    for number, piece in enumerate(pieces):
        last = number == len(pieces) - 1
        features, listening = encoder.step(listening, piece, last=last)
        batches, moving = motion.step(moving, features, query, lids, 30.0, 57 if last else None)
        for batch in batches:
            made.append(template.place(template.seal.close(batch.offsets, batch.rim_offsets, batch.contact)))
    assert np.concatenate(made).tobytes() == whole.tobytes()


@each_engine
@pytest.mark.parametrize("resolution", [None, 500])
def test_onnx_gives_the_same_bytes_twice(shipped, engine, resolution):
    one, two = (vertices(shipped.animate(speech(0.7), AnimateOptions(engine, resolution))) for _ in range(2))
    assert one.tobytes() == two.tobytes()


@each_engine
def test_resolutions_agree_through_the_whole_engine(engine, shipped):
    """Law 2, with the seal and the maps: where the points of a resolution are vertices, they are native's."""
    native = vertices(shipped.animate(speech(0.7), AnimateOptions(engine)))
    points = vertices(shipped.animate(speech(0.7), AnimateOptions(engine, resolution=500)))
    anchors = shipped._placement("default", 500).head.anchors
    exact = anchors.weights.max(1) > 1 - 1e-6
    vertex = shipped_head().atlas.faces[anchors.face, anchors.weights.argmax(1)][exact]
    assert np.abs(points[:, exact] - native[:, vertex]).max() < 1e-5


# What is refused.


def test_an_engine_without_weights_is_refused(tmp_path):
    with pytest.raises(CheckpointError, match="TALKER_WEIGHTS"):
        load_engine(tmp_path, tmp_path, device="cpu")


@pytest.mark.parametrize("name", CHECKPOINTS)
def test_an_engine_with_damaged_weights_is_refused(name, tmp_path):
    for each in CHECKPOINTS:
        (tmp_path / each).write_bytes(b"weights")
        pin(tmp_path, each, tmp_path / each)
    (tmp_path / name).write_bytes(b"other weights")
    with pytest.raises(CheckpointError, match=f"{name} is damaged"):
        load_engine(tmp_path, tmp_path, device="cpu")


# The shipped weights.


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> LocalEngine:
    if missing := set(CHECKPOINTS) - read_manifest(WEIGHTS).keys():
        pytest.skip(f"weights/ holds no {', '.join(sorted(missing))} yet")
    return load_engine(WEIGHTS, tmp_path_factory.mktemp("cache"), device="cpu", threads=1)


def test_the_seed_moves_the_eyes_and_little_else(trained):
    """Two seeds differ by millimetres at the lids, and on the skin 40 mm away from the eyeballs by under 1.5 mm."""
    head = shipped_head()
    one, two = (vertices(trained.animate(speech(6.0), AnimateOptions(seed=seed))) for seed in (0, 1))
    difference = np.linalg.norm(one - two, axis=2).max(0)
    eyes = head.atlas.vertices[np.concatenate([head.part("eye_right"), head.part("eye_left")])]
    away = np.linalg.norm(head.atlas.vertices[:, None] - eyes[None, ::20], axis=2).min(1)
    assert difference[head.regions["eyes"]].max() > 0.002
    skin = np.isin(np.arange(len(difference)), head.part("skin"))
    assert difference[skin & (away > 0.04)].max() < 0.0015


def test_the_mouth_is_at_rest_once_speech_has_ended(trained):
    """Law 6: a second of silence after a second of noise; the lips are open by under a millimetre."""
    head = shipped_head()
    waveform = Waveform(np.concatenate([noise(SAMPLE_RATE_HZ), np.zeros(SAMPLE_RATE_HZ, np.float32)]))
    last = vertices(trained.animate(waveform, AnimateOptions()))[-1]
    offsets = (last - head.atlas.vertices)[None, head.rim]
    assert head.seal.opening(offsets).max() < 0.001
