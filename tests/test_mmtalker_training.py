"""MMTalker's recipe: what a batch calls true is the rig's, what it hears is what the service hears, and the loss is
zero where the two agree.

`write_corpus` serves other tests of training too.
"""

import json
from collections.abc import Sequence
from dataclasses import asdict, fields, replace
from functools import cache
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from test_face import sentence, small_rig
from tiny import (
    CONFIG,
    WEIGHTS,
    noise,
    tiny_encoder,
    tiny_head,
    tiny_motion,
    tiny_moving,
    tiny_network,
    tiny_pivot,
    tiny_speech,
    tiny_style,
)
from tiny_textalker import tiny_encoders
from torch import Tensor

from models.atlas import Anchors
from models.checkpoint import Header, read_header, read_tensors, save_checkpoint
from models.core import Waveform
from models.errors import MalformedInput
from models.mmtalker.network import MMTalker, load_mmtalker
from models.mmtalker.sampling import initial_log_density
from models.mmtalker.streaming import SurfaceQuery, stream_motion
from models.template import load_head
from training import mmtalker
from training.corpus.coarticulation import RATE_HZ, mouth_curves
from training.corpus.face import ACTIONS, FaceRig, save_rig, speech_weights, upper_face_weights
from training.corpus.subjects import draw_subjects
from training.datasets.corpus import Corpus, CorpusClip
from training.mmtalker import (
    CLOSURE_WEIGHT,
    CONTACT_WEIGHT,
    FRAMES,
    LIP_DISTANCE_WEIGHT,
    PIVOT_RATE_HZ,
    POINTS,
    SAMPLER_WEIGHT,
    SEQUENCES,
    Batch,
    HeardClip,
    Objective,
    _window,
    clip_pivots,
    draw_batch,
    hear_batch,
    hear_clip,
    hear_corpus,
    principal_axes,
    rims_of,
    subject_pivots,
    train,
)
from training.speech_encoder import Augmentation

SPOKEN = {"first": ("S00", 70), "second": ("S01", 90), "short": ("S02", 1), "unseen": ("S03", 5), "unheard": ("S03", 4)}
"""The tiny corpus: who says how many words. S03 is held out; S02 is done in less than a second."""


def write_corpus(folder: Path) -> Corpus:
    """A corpus on disk of noise that is labelled as speech; both lids close twice a second."""
    subjects = {subject.id: subject for subject in draw_subjects(0, 4, held_out=1)}
    (folder / "clips").mkdir(parents=True)
    save_rig(small_rig(), folder / "rig.safetensors")
    shapes = {name: torch.from_numpy(tiny_head().atlas.vertices * (1 + 0.1 * k)) for k, name in enumerate(subjects)}
    save_checkpoint(folder / "shapes.safetensors", shapes, Header("shapes", {}))
    for seed, (name, (subject, words)) in enumerate(SPOKEN.items()):
        phones = sentence(seed, words)
        count = round(phones[-1].end_s * RATE_HZ)
        curves = mouth_curves(phones, count, subjects[subject].motion)
        blinks = 0.5 - 0.5 * np.cos(np.arange(count) / RATE_HZ * 4 * np.pi)
        weights = speech_weights(curves, phones, subjects[subject], small_rig().gaps_mm)
        np.savez(
            folder / "clips" / f"{name}.npz",
            samples=(noise(round(phones[-1].end_s * Waveform.rate_hz), seed) * 32767).astype(np.int16),
            weights=weights + upper_face_weights(blinks, 0 * blinks, subjects[subject]),
            contact=curves.contact,
            blinks=blinks,
            phone_names=[phone.name for phone in phones],
            phone_times=[(phone.start_s, phone.end_s) for phone in phones],
        )
    clips = [{"id": name, "subject": subject, "origin": "noise"} for name, (subject, _) in SPOKEN.items()]
    description = {"subjects": [asdict(subject) for subject in subjects.values()], "clips": clips}
    (folder / "corpus.json").write_text(json.dumps(description))
    return Corpus(folder)


@pytest.fixture(scope="module")
def corpus(tmp_path_factory: pytest.TempPathFactory) -> Corpus:
    return write_corpus(tmp_path_factory.mktemp("corpus") / "built")


def random_clip(seed: int = 0, words: int = 14) -> CorpusClip:
    """3.6 s of noise and of a face that does anything."""
    random, phones = np.random.default_rng(seed), sentence(seed, words)
    count = round(phones[-1].end_s * RATE_HZ)
    weights, contact, blinks = (random.random(shape) for shape in ((count, len(ACTIONS)), count, count))
    samples = noise(round(phones[-1].end_s * Waveform.rate_hz), seed)
    tracks = ((0.3 * weights).astype(np.float32), contact.astype(np.float32), blinks.astype(np.float32))
    return CorpusClip("x", "S00", True, samples, tuple(phones), *tracks)


@cache
def heard(seed: int = 0) -> HeardClip:
    """A random clip; its pivot and its subject's are nobody else's."""
    clip = random_clip(seed)
    pivots = torch.from_numpy(np.stack([tiny_pivot(2 * seed), tiny_pivot(2 * seed + 1)]))
    features = hear_clip(clip, tiny_encoder(), augmentation())
    return HeardClip(clip.subject, pivots, features, clip.weights, clip.contact, clip.blinks)


def augmentation() -> Augmentation:
    return Augmentation([], np.random.default_rng(0), 1.0)


def drawn(seed: int = 0, clips: Sequence[HeardClip] = ()) -> Batch:
    return draw_batch(clips or [heard()], small_rig(), log_density(), seed)


def log_density() -> Tensor:
    return torch.from_numpy(initial_log_density(tiny_head()))


def both(anchors: Anchors) -> Anchors:
    """The anchors, and the rim's after them."""
    return Anchors(*(np.concatenate(pair) for pair in zip(anchors, tiny_head().rim_anchors, strict=True)))


@cache
def objective(eyes: tuple[int, ...] = ()) -> Objective:
    """On the tiny head; `eyes` takes other vertices for the eyes' region."""
    regions = {**tiny_head().regions, "eyes": np.array(eyes, int)} if eyes else tiny_head().regions
    return Objective(FaceRig(replace(tiny_head(), regions=regions), small_rig().basis), tiny_moving())


def predicted(network: MMTalker, batch: Batch) -> tuple[Tensor, Tensor]:
    """What the network does at a batch's points and at the rim, in metres."""
    instants, _ = hear_batch(network, batch)
    offsets = objective().displace(network.surface, instants, both(batch.anchors)).detach()
    return offsets[:POINTS], offsets[POINTS:]


def believed(batch: Batch, points: Tensor | float = 0.0, rim: Tensor | float = 0.0) -> Batch:
    """The batch, its truth being what the tiny network does, plus so much (metres)."""
    offsets, rim_offsets = predicted(tiny_network(), batch)
    return replace(batch, offsets=offsets + points, rim_offsets=rim_offsets + rim)


def terms(batch: Batch, own: Objective | None = None) -> dict[str, float]:
    with torch.no_grad():
        return {name: float(value) for name, value in (own or objective())(tiny_network(), batch).items()}


def density_gradient(batch: Batch, network: MMTalker) -> Tensor:
    objective()(network, batch)["total"].backward()
    assert network.log_density.grad is not None
    return network.log_density.grad


# What a clip sounds like.


def test_a_clip_is_heard_clean_and_in_as_many_other_rooms_as_asked():
    """The first copy is what the service hears, but for powers that are kept as float16."""
    clip = random_clip()
    listened, _ = tiny_speech().step(tiny_speech().start(), clip.samples, last=True)
    copies = hear_clip(clip, tiny_encoder(), augmentation(), copies=3)
    assert len(copies) == 4
    assert {copy.shape for copy in copies} == {listened.shape}
    assert (copies[0] - listened).abs().max() < 1e-3
    assert all((copies[k] - copies[j]).abs().max() > 0.1 for k in range(4) for j in range(k))


def test_an_encoder_that_needs_samples_hears_noise_over_them(monkeypatch):
    """The first copy is the service's to the last bit; the others are the sound in noise, another each."""
    added: list[tuple[float, int]] = []
    noisy = mmtalker.add_noise
    monkeypatch.setattr(mmtalker, "add_noise", lambda w, db, seed: added.append((db, seed)) or noisy(w, db, seed))
    clip, encoder = random_clip(), tiny_speech()
    listened, _ = encoder.step(encoder.start(), clip.samples, last=True)
    copies = hear_clip(clip, encoder, augmentation())
    assert len(copies) == 3
    assert {copy.shape for copy in copies} == {listened.shape}
    assert torch.equal(copies[0], listened)
    assert all((copies[k] - copies[j]).abs().max() > 0.1 for k in range(3) for j in range(k))
    levels, seeds = zip(*added, strict=True)
    assert len(set(seeds)) == len(set(levels)) == 2
    assert 5 <= min(levels) <= max(levels) <= 35


@pytest.mark.parametrize("held_out", [False, True])
def test_a_corpus_is_heard_clip_by_clip(corpus, held_out):
    """Each with its own pivot and its subject's; faces are the clips' own."""
    pivots = {name: tiny_pivot(seed) for seed, name in enumerate(SPOKEN)}
    clips = hear_corpus(corpus, tiny_encoder(), pivots, held_out=held_out, copies=0)
    owners = list(corpus.clips(held_out=held_out))
    means = subject_pivots(owners, pivots)
    assert len(clips) == len(owners) > 1
    for clip, own in zip(clips, owners, strict=True):
        assert clip.subject == own.subject
        assert np.array_equal(clip.pivots, np.stack([pivots[own.id], means[own.subject]]))
        assert len(clip.features) == 1
        assert all(np.array_equal(getattr(clip, name), getattr(own, name)) for name in ("weights", "contact", "blinks"))


# What a style is.


@pytest.mark.parametrize("held_out", [False, True])
def test_a_clips_pivot_is_the_mean_of_its_motion_latents(corpus, held_out):
    """Over two frames a second, as the service encodes an example's offsets."""
    rig, encoders = corpus.rig(tiny_head()), tiny_encoders()
    pivots = clip_pivots(corpus, rig, encoders, held_out=held_out)
    clips = list(corpus.clips(held_out=held_out))
    assert [*pivots] == [clip.id for clip in clips]
    for clip in clips:
        frames = slice(None, None, RATE_HZ // PIVOT_RATE_HZ)
        latents = encoders.motion(rig.offsets(clip.weights[frames], clip.contact[frames]))
        assert pivots[clip.id] == pytest.approx(latents.mean(0), abs=1e-4)
        assert pivots[clip.id].dtype == np.float32
    assert np.abs(pivots[clips[0].id] - pivots[clips[1].id]).max() > 1e-3


def test_a_subjects_pivot_is_the_mean_by_its_clips_lengths():
    one, other = random_clip(), replace(random_clip(), id="y", contact=np.zeros(3 * len(random_clip().contact)))
    alone = replace(random_clip(), id="z", subject="S01")
    pivots = {"x": np.float32([0, 4]), "y": np.float32([4, 0]), "z": np.float32([7, 8])}
    means = subject_pivots([one, alone, other], pivots)
    assert {name: mean.tolist() for name, mean in means.items()} == {"S00": [3, 1], "S01": [7, 8]}
    assert means["S00"].dtype == np.float32


def around(*steps: Tensor) -> dict[str, Tensor]:
    """Pivots about tiny_pivot(), a step forth and a step back for each."""
    offsets = [sign * step for step in steps for sign in (1, -1)]
    return {str(k): torch.from_numpy(tiny_pivot()) + offset for k, offset in enumerate(offsets)}


def axis(k: int) -> Tensor:
    return torch.eye(CONFIG.pivot)[k]


def test_axes_are_those_along_which_pivots_differ_in_units_of_their_spread():
    """Four pivots 3 and 2 to either side along two axes: their spread is 3 and 2, over the root of 2."""
    mean, axes = principal_axes(around(3 * axis(5), 2 * axis(9)), 2)
    assert mean.numpy() == pytest.approx(tiny_pivot(), abs=1e-6)
    wanted = torch.stack([axis(5) / 3, axis(9) / 2], 1) * 2**0.5
    assert axes.abs().numpy() == pytest.approx(wanted.numpy(), abs=1e-5)


def test_along_their_axes_pivots_have_a_spread_of_one_and_no_correlation():
    known = {str(seed): torch.from_numpy(tiny_pivot(seed)) for seed in range(20)}
    mean, axes = principal_axes(known, 6)
    places = (torch.stack([*known.values()]) - mean) @ axes
    assert axes.dtype == mean.dtype == torch.float32
    assert (places.T @ places / 20).numpy() == pytest.approx(np.eye(6), abs=1e-4)


def test_an_axis_along_which_pivots_hardly_differ_is_not_stretched():
    """Beyond five times what the first is."""
    _, axes = principal_axes(around(10 * axis(5), 0.1 * axis(9)), 2)
    assert axes.norm(dim=0).tolist() == pytest.approx([2**0.5 / 10, 2**0.5 / 10 / mmtalker.LEAST_AXIS])


def test_where_pivots_do_not_differ_there_are_no_axes():
    """Two subjects have one; one has none: what was never seen to vary says nothing."""
    _, of_two = principal_axes(around(3 * axis(5)), 3)
    assert of_two[:, 0].any()
    assert not of_two[:, 1:].any()
    mean, of_one = principal_axes({"S00": torch.from_numpy(tiny_pivot())}, 3)
    assert torch.equal(mean, torch.from_numpy(tiny_pivot()))
    assert of_one.shape == (CONFIG.pivot, 3)
    assert not of_one.any()


# What a batch is.


def test_the_same_seed_gives_the_same_batch_and_another_seed_another():
    one, same, other = (drawn(seed, [heard(), heard(1)]) for seed in (3, 3, 4))
    for name in (field.name for field in fields(Batch) if field.name not in ("anchors", "first", "length")):
        assert torch.equal(getattr(one, name), getattr(same, name)), name
        assert not torch.equal(getattr(one, name), getattr(other, name)), name
    assert (one.first, one.length) == (same.first, same.length)
    assert all(np.array_equal(a, b) for a, b in zip(one.anchors, same.anchors, strict=True))


@pytest.mark.parametrize("seed", range(3))
def test_what_a_batch_calls_true_is_the_rigs(seed, monkeypatch):
    """At its anchors and at the rim, at its times, the tracks between samples mixed linearly."""
    monkeypatch.setattr(mmtalker, "BLINKING", 0)
    clip, batch = random_clip(), drawn(seed)
    position, sample = batch.time_s.numpy().ravel() * RATE_HZ, np.arange(len(clip.contact))
    weights = np.stack([np.interp(position, sample, track) for track in clip.weights.T], 1)
    contact, lids = (np.interp(position, sample, track) for track in (clip.contact, clip.blinks))
    surface = small_rig().offsets(weights, contact).transpose(1, 0, 2)
    there = tiny_head().atlas.interpolate(surface, batch.anchors)
    assert np.abs(there).max() > 1e-3
    assert batch.offsets.numpy() == pytest.approx(there, abs=1e-6)
    assert batch.rim_offsets.numpy() == pytest.approx(surface[tiny_head().rim], abs=1e-6)
    assert batch.contact.numpy().ravel() == pytest.approx(contact, abs=1e-5)
    assert batch.lids.numpy().ravel() == pytest.approx(lids, abs=1e-5)


def test_blinks_are_drawn_into_some_sequences(monkeypatch):
    """Lids and the actions that move them close alike, further than the clip says, and nothing else moves."""
    calls: list[tuple[np.ndarray, np.ndarray]] = []
    plain = FaceRig.offsets
    monkeypatch.setattr(FaceRig, "offsets", lambda rig, *args: calls.append(args[:2]) or plain(rig, *args))
    open_eyed = replace(heard(), weights=heard().weights.copy(), blinks=np.zeros_like(heard().blinks))
    open_eyed.weights[:, mmtalker.LIDS] = 0
    batches = [drawn(seed, [open_eyed]) for seed in range(20)]
    lids = torch.stack([batch.lids for batch in batches])
    assert 0.2 < (lids.amax(2) > 0.1).float().mean() < 0.5
    assert lids.max() > 0.95
    for batch, (weights, _) in zip(batches, calls, strict=True):
        for side in mmtalker.LIDS:
            assert weights[:, side] == pytest.approx(batch.lids.numpy().ravel(), abs=1e-6)
    monkeypatch.setattr(mmtalker, "BLINKING", 0)
    still = drawn(0, [open_eyed])
    assert torch.equal(still.contact, batches[0].contact)
    others = [k for k in range(len(ACTIONS)) if k not in mmtalker.LIDS]
    assert np.array_equal(calls[-1][0][:, others], calls[0][0][:, others])


def test_the_rims_of_lips_and_lids_come_with_their_gaps():
    """On the shipped head both eyes: shut, their columns close; the lips' columns do not see them."""
    head = load_head(WEIGHTS / "head.safetensors")
    rims = rims_of(head)
    rim = head.atlas.interpolate(head.atlas.vertices, rims.anchors)
    assert np.array_equal(rim[: len(head.rim)], head.atlas.vertices[head.rim])
    assert np.isin(rims.anchors.face, np.flatnonzero(head.atlas.chart == 0)).any()
    assert not rims.lip_gaps[:, len(head.rim) :].any()
    assert not rims.lid_gaps[:, : len(head.rim)].any()
    assert rims.lip_gaps[:, : len(head.rim)] == pytest.approx(head.seal.gaps)
    open_mm = -1e3 * (rims.lid_gaps @ rim[:, 1])
    assert open_mm.max() > 6
    assert open_mm.min() > 0


def test_a_head_without_eyes_has_no_lids():
    assert len(rims_of(tiny_head()).lid_gaps) == 0


def test_sequences_are_thirty_frames_a_second_within_their_clip():
    for seed in range(20):
        time_s = drawn(seed).time_s.numpy()
        assert time_s.shape == (SEQUENCES, FRAMES)
        assert np.diff(time_s) == pytest.approx(1 / 30)
        assert 0 <= time_s.min() <= time_s.max() <= len(random_clip().contact) / RATE_HZ


def test_points_lie_where_the_density_is():
    """Almost all of it on two faces, three to one."""
    density = torch.full_like(log_density(), -30.0)
    density[7], density[40] = np.log(3), 0
    batch = draw_batch([heard()], small_rig(), density, 0)
    assert set(batch.anchors.face.tolist()) == {7, 40}
    assert (batch.anchors.face == 7).mean() == pytest.approx(0.75, abs=0.1)
    assert batch.anchors.weights.sum(1) == pytest.approx(np.ones(POINTS), abs=1e-6)
    assert batch.anchors.weights.min() >= 0


def test_sequences_are_spoken_in_their_clips_style_or_their_subjects():
    """By halves: the one is told exactly, the other is what a service knows."""
    clip_or_subject = torch.cat([drawn(seed).pivot for seed in range(40)])
    own, subjects = ((clip_or_subject == pivot).all(1) for pivot in heard().pivots)
    assert (own ^ subjects).all()
    assert own.float().mean() == pytest.approx(0.5, abs=0.1)


def test_a_sequences_style_is_of_the_clip_that_it_is_of():
    clips = [heard(), heard(1)]
    features = [{tuple(row) for copy in clip.features for row in copy.tolist()} for clip in clips]
    for seed in range(5):
        batch = drawn(seed, clips)
        for pivot, window, length in zip(batch.pivot, batch.features, batch.length, strict=True):
            (owner,) = (k for k, rows in enumerate(features) if tuple(window[2 + length // 2].tolist()) in rows)
            assert (clips[owner].pivots == pivot).all(1).any()


def test_all_copies_of_a_clip_are_heard():
    """Of three that are constants, each."""
    copies = tuple(torch.full((180, 16), float(k)) for k in range(1, 4))
    batches = [drawn(seed, [replace(heard(), features=copies)]) for seed in range(3)]
    assert {float(window.max()) for batch in batches for window in batch.features} == {1.0, 2.0, 3.0}


# What a batch hears.


def windowed(batch: Batch, features: Tensor, time_s: np.ndarray) -> Batch:
    """One sequence at given times, lids half closed, in somebody's style."""
    window, first, length = _window(features, time_s)
    frames = torch.from_numpy(time_s)[None]
    lids = torch.full(frames.shape, 0.5)
    pivot = torch.from_numpy(tiny_pivot())[None]
    return replace(batch, pivot=pivot, features=window[None], first=[first], length=[length], time_s=frames, lids=lids)


@cache
def streamed() -> tuple[np.ndarray, np.ndarray]:
    """Offsets (frames, points, 3) of a batch's points and probability of contact (frames,), as the service makes them
    at 30 fps.
    """
    query = tiny_motion().query(drawn().anchors, tiny_head().rim_anchors)
    lids = SimpleNamespace(closure=lambda time_s: np.full(len(time_s), 0.5, np.float32))
    waveform = Waveform(random_clip().samples)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("models.mmtalker.streaming.contact_amount", lambda probability: probability)
        batches = list(stream_motion(tiny_speech(), tiny_motion(), waveform, query, lids, 30.0, tiny_style()))
    return np.concatenate([batch.offsets for batch in batches]), np.concatenate([batch.contact for batch in batches])


def test_every_window_is_as_long_as_any_other():
    """Also of a clip that is shorter, so that they make a batch."""
    lengths = {
        len(_window(torch.ones(count, 2), at + np.arange(FRAMES) / 30).features)
        for count in (20, 60, 120, 300)
        for at in np.linspace(0, max(0.01, count / 50 - 0.2), 23)
    }
    assert len(lengths) == 1


@pytest.mark.parametrize("at_s", [0.0, 0.013, 1.99, 2.0, 2.03, 2.0401, 2.06, 3.3333, 5.0])
def test_a_windows_features_are_the_clips_at_those_instants(at_s):
    """The local ones see two features to either side, in a window as in a whole clip."""
    features = torch.randn(400, CONFIG.features, generator=torch.Generator().manual_seed(0))
    time_s = at_s + np.arange(FRAMES) / 30
    batch, network = windowed(drawn(), features, time_s), tiny_network()
    padded = torch.nn.functional.pad(features, (0, 0, 2, 2))
    whole = replace(batch, features=padded[None], first=[0], length=[len(features)])
    with torch.no_grad():
        (some, some_contact), (all_of_it, contact) = (hear_batch(network, each) for each in (batch, whole))
    assert torch.allclose(some.local, all_of_it.local, atol=1e-5)
    assert torch.allclose(some_contact, contact, atol=1e-5)
    # two seconds of memory are as good as all of it
    assert torch.allclose(some.overall, all_of_it.overall, atol=1e-5)
    assert torch.allclose(some.around, all_of_it.around, atol=1e-5)
    assert (some.overall[0] - some.overall[-1]).abs().max() > 0.01


@pytest.mark.parametrize("frame", [0, 1, 17, 58, 59, 60, 61, 62, 70, 90])
def test_training_sees_what_the_service_does(frame):
    """From the sound to displacements at points: a sequence of the recipe is that part of the service's stream."""
    batch = windowed(drawn(), heard().features[0], (frame + np.arange(FRAMES)) / 30)
    offsets, contact = (part[frame : frame + FRAMES] for part in streamed())
    points, _ = predicted(tiny_network(), batch)
    assert points.transpose(0, 1).numpy() == pytest.approx(offsets, abs=2e-6)
    _, logits = hear_batch(tiny_network(), batch)
    assert logits[0].detach().sigmoid().numpy() == pytest.approx(contact, abs=1e-3)
    assert min(offsets.std(0).max(), contact.std()) > 1e-4


def test_training_sees_what_the_service_does_at_a_clips_end():
    offsets, _ = streamed()
    frame = len(offsets) - FRAMES
    batch = windowed(drawn(), heard().features[0], (frame + np.arange(FRAMES)) / 30)
    points, _ = predicted(tiny_network(), batch)
    assert points.transpose(0, 1).numpy() == pytest.approx(offsets[frame:], abs=2e-6)


def test_each_sequence_is_heard_in_its_style():
    """Whatever the others' are; whether lips touch is heard alike in all of them."""
    batch, network = drawn(), tiny_network()

    def listened(*seeds: int) -> tuple[Tensor, Tensor]:
        pivots = [torch.from_numpy(tiny_pivot(seed)) for seed in seeds * (SEQUENCES // len(seeds))]
        with torch.no_grad():
            instants, contact = hear_batch(network, replace(batch, pivot=torch.stack(pivots)))
        return instants.overall.unflatten(0, (SEQUENCES, FRAMES)), contact

    (mixed, contact), (first, same), (third, _) = listened(1, 3), listened(1), listened(3)
    assert torch.allclose(mixed[::2], first[::2], atol=1e-6)
    assert torch.allclose(mixed[1::2], third[1::2], atol=1e-6)
    assert (first - third).abs().amax((1, 2)).min() > 1e-3
    assert torch.allclose(contact, same, atol=1e-6)


# What the network is asked for.


def test_displacements_are_the_streams_at_any_points():
    """Made at the corners of the points alone: decoder, interpolation and mask give what they give over the surface."""
    batch, surface = drawn(), tiny_network().surface
    query = SurfaceQuery(tiny_head().atlas, tiny_moving(), batch.anchors, tiny_head().rim_anchors)
    with torch.no_grad():
        instants, _ = hear_batch(tiny_network(), batch)
        latent = surface.latent(instants)
        moved = torch.cat([surface.decode(surface.interpolate(latent, *chunk)) for chunk in query.chunks()])
    offsets, rim = query.spread(moved[: len(query.vertex)].transpose(0, 1).numpy())
    points, rim_points = predicted(tiny_network(), batch)
    assert np.abs(offsets).max() > 1e-3
    assert points.transpose(0, 1).numpy() == pytest.approx(offsets, abs=1e-7)
    assert rim_points.transpose(0, 1).numpy() == pytest.approx(rim, abs=1e-7)


def test_what_does_not_move_is_asked_for_too_and_is_still():
    batch = drawn()
    points, _ = predicted(tiny_network(), batch)
    still = ~np.isin(tiny_head().atlas.faces[batch.anchors.face], tiny_moving()).any(1)
    assert 0 < still.sum() < POINTS
    assert not points[still].any()
    assert points[~still].abs().amax((1, 2)).min() > 0


# The loss.


def test_the_loss_is_zero_for_the_truth():
    """In all that is a distance; contact and the sampler's density are other things."""
    result = terms(believed(drawn()))
    assert [result[name] for name in ("rec", "vel", "eye", "lips")] == pytest.approx([0] * 4, abs=1e-9)
    assert result["contact"] > 0.1


def test_the_terms_are_the_papers_written_out():
    """Eq. 7 to 10 in mm², the rim at a tenth, and the distance between the lips; contact as a cross entropy."""
    eyes = tuple(tiny_moving().tolist())
    batch, own, network = drawn(5), objective(eyes), tiny_network()
    points, rim = (part.numpy().astype(float) * 1e3 for part in predicted(network, batch))
    error, rim_error = points - 1e3 * batch.offsets.numpy(), rim - 1e3 * batch.rim_offsets.numpy()
    contact = batch.contact.numpy().ravel()
    weight = 1 + CLOSURE_WEIGHT * contact
    result = terms(batch, own)
    assert result["rec"] == pytest.approx((error**2).sum(2).mean() + 0.1 * ((rim_error**2).sum(2) * weight).mean())

    def steps(values: np.ndarray) -> float:
        return float((np.diff(values.reshape(-1, SEQUENCES, FRAMES, 3), axis=2) ** 2).sum(3).mean())

    assert result["vel"] == pytest.approx(steps(error) + 0.1 * steps(rim_error), rel=1e-4)
    gaps = np.einsum("jr,rtc->jtc", tiny_head().seal.gaps, rim_error)
    assert result["lips"] == pytest.approx(((gaps**2).sum(2) * weight).mean(), rel=1e-4)

    at_eyes = np.isin(tiny_head().atlas.faces[batch.anchors.face], eyes).all(1)
    moved = [np.linalg.norm(x[at_eyes], axis=2) for x in (points, 1e3 * batch.offsets.numpy())]
    own_share, true_share = (np.exp(x) / np.exp(x).sum(1, keepdims=True) for x in moved)
    divergence = (true_share * np.log(true_share / own_share)).sum(1).mean()
    assert divergence > 0.01
    assert result["eye"] == pytest.approx(divergence, rel=1e-3)

    logits = hear_batch(network, batch)[1].detach().numpy().ravel()
    entropy = np.log1p(np.exp(-logits)) * contact + np.log1p(np.exp(logits)) * (1 - contact)
    assert result["contact"] == pytest.approx(entropy.mean(), rel=1e-4)


def test_the_total_is_the_terms_by_their_weights():
    """Where every point errs alike and the density is the initial one, the sampler has nothing to say."""
    grows = torch.arange(FRAMES).repeat(SEQUENCES)[None, :, None] * 0.001
    own, network = objective(tuple(tiny_moving().tolist())), tiny_network()
    network.log_density.data = own.initial.clone()
    result = {name: float(value.detach()) for name, value in own(network, believed(drawn(), grows, grows)).items()}
    assert min(result[name] for name in ("rec", "vel", "eye", "contact")) > 0.1
    named = result["rec"] + 10 * result["vel"] + 0.01 * result["eye"] + LIP_DISTANCE_WEIGHT * result["lips"]
    assert result["total"] == pytest.approx(named + CONTACT_WEIGHT * result["contact"], rel=1e-6)


def test_a_closure_weighs_more():
    """Six times, at the rim and between the lips; elsewhere on the face all frames weigh the same."""
    lower = torch.zeros(len(tiny_head().rim), 1, 3)
    lower[5:, :, 1] = 0.001
    open_, shut = (
        terms(replace(believed(drawn(), rim=lower), contact=torch.full((SEQUENCES, FRAMES), touching)))
        for touching in (0.0, 1.0)
    )
    assert open_["lips"] > 0.1
    for name in ("rec", "lips"):
        assert shut[name] == pytest.approx((1 + CLOSURE_WEIGHT) * open_[name], rel=1e-4)
    away = (replace(believed(drawn(), 0.001), contact=torch.full((SEQUENCES, FRAMES), at)) for at in (0.0, 1.0))
    assert [terms(batch)["rec"] for batch in away] == pytest.approx([3, 3], rel=1e-4)


def test_a_lips_distance_is_between_the_lips():
    """Both lips 1 mm too low are where they should be to each other."""
    result = terms(believed(drawn(), rim=torch.tensor([0, -0.001, 0])))
    assert result["rec"] > 0.09
    assert result["lips"] == pytest.approx(0, abs=1e-6)


def test_a_constant_error_has_no_velocity():
    """Nor has one that jumps from one sequence to the next: they are not neighbours."""
    jumps = torch.arange(SEQUENCES).repeat_interleave(FRAMES)[None, :, None] * 0.001
    result = terms(believed(drawn(), jumps))
    assert result["vel"] == pytest.approx(0, abs=1e-6)
    assert result["rec"] == pytest.approx(3 * np.mean(np.arange(SEQUENCES) ** 2), rel=1e-4)


def test_an_error_that_grows_has_the_velocity_that_it_grows_by():
    """2 mm a frame along each axis."""
    grows = torch.arange(FRAMES).repeat(SEQUENCES)[None, :, None] * 0.002
    assert terms(believed(drawn(), grows))["vel"] == pytest.approx(3 * 2**2, rel=1e-4)


def test_eyes_count_where_there_are_any():
    """The divergence is of points whose triangle belongs to the eyes: with none of them it is 0."""
    assert terms(drawn(), objective(tuple(tiny_moving().tolist())))["eye"] > 0
    assert terms(drawn(), objective((0,)))["eye"] == 0


def test_the_sampler_is_drawn_to_where_the_error_is():
    """Down the gradient, density rises on the faces of larger error and falls on the others."""
    batch = drawn()
    worse = batch.anchors.face % 2 == 0
    error = torch.from_numpy(np.where(worse, 0.003, 0.0).astype(np.float32))[:, None, None]
    gradient = density_gradient(believed(batch, error), tiny_network()).numpy()
    assert (gradient[np.unique(batch.anchors.face[worse])] < 0).all()
    assert (gradient[np.unique(batch.anchors.face[~worse])] > 0).all()


def test_the_sampler_does_not_go_far_from_the_start():
    """Where errors are equal, a density that has left the start goes back: the gradient is that of the divergence."""
    network = tiny_network()
    network.log_density.data[7] += 2
    gradient = density_gradient(believed(drawn(), 0.001), network)
    share, start = (density.detach().double().softmax(0) for density in (network.log_density, log_density()))
    ratio = (share / start).log()
    wanted = SAMPLER_WEIGHT * share * (ratio - (share * ratio).sum())
    assert gradient[7] > 1e-4
    assert torch.allclose(gradient.double(), wanted, atol=1e-6)


def test_the_sampler_does_not_train_the_rest():
    """With another density, the same points give every other parameter the same gradient."""
    own, other = tiny_network(), tiny_network()
    other.log_density.data[::3] += 2
    batch = drawn()
    for network in (own, other):
        density_gradient(batch, network)
    for (name, part), same in zip(own.named_parameters(), other.parameters(), strict=True):
        if name != "log_density" and part.grad is not None:
            assert torch.allclose(part.grad, same.grad, rtol=1e-4, atol=1e-5), name


def test_the_loss_trains_every_part():
    """No parameter is left without a gradient."""
    network = tiny_network()
    objective()(network, drawn())["total"].backward()
    assert {name for name, part in network.named_parameters() if part.grad is None or not part.grad.any()} == set()


def test_named_terms_have_no_gradient():
    result = objective()(tiny_network(), drawn())
    assert {name for name, value in result.items() if value.requires_grad} == {"total"}


# The recipe as a whole.


def run(corpus: Corpus, folder: Path, steps: int = 2, **arguments) -> MMTalker:
    arguments = {"encoder": tiny_encoder(), "config": CONFIG} | arguments
    return train(corpus, tiny_encoders(), folder=folder, steps=steps, **arguments)


def test_a_run_writes_what_a_service_loads(corpus, tmp_path):
    """The averaged network, which is what it returns too, on this head; as wide as encoder and pivots are."""
    other = replace(CONFIG, features=9, pivot=7)
    network = run(corpus, tmp_path, config=other, evaluate=lambda network: {"score": 0.5})
    assert {path.name for path in tmp_path.iterdir()} == {
        *("state.safetensors", "averaged.safetensors", "metrics.jsonl")
    }
    assert json.loads((tmp_path / "metrics.jsonl").read_text()) == {"step": 2, "evaluation": {"score": 0.5}}
    loaded = load_mmtalker(tmp_path / "averaged.safetensors", tiny_head().atlas)
    assert loaded.config == replace(CONFIG, features=16, pivot=64, atlas=tiny_head().atlas.fingerprint)
    assert np.array_equal(loaded.surface.moving.numpy(), corpus.rig(tiny_head()).moving)
    assert loaded.state_dict().keys() == network.state_dict().keys()
    assert all(torch.equal(tensor, network.state_dict()[name]) for name, tensor in loaded.state_dict().items())


def test_a_run_places_styles_about_the_mean_of_its_subjects(corpus, tmp_path):
    """Along the axes of those who say enough, S00 and S01, who are one unit from their mean to either side."""
    audio = run(corpus, tmp_path).audio
    pivots = clip_pivots(corpus, corpus.rig(tiny_head()), tiny_encoders(), held_out=False)
    mean, axes = principal_axes({"S00": Tensor(pivots["first"]), "S01": Tensor(pivots["second"])}, CONFIG.pivot_axes)
    assert audio.pivot_mean.numpy() == pytest.approx(mean.numpy(), abs=1e-6)
    assert audio.pivot_axes.numpy() == pytest.approx(axes.numpy(), rel=1e-5, abs=1e-5)
    place = (Tensor(pivots["first"]) - audio.pivot_mean) @ audio.pivot_axes
    assert place.abs().tolist() == pytest.approx([1, 0, 0], abs=1e-4)


def test_the_header_says_what_it_learned_from(corpus, tmp_path):
    """In minutes of clips of more than a second, and their subjects: S02 says too little."""
    clips = [clip for clip in corpus.clips(held_out=False) if clip.id != "short"]
    minutes = sum(len(clip.samples) for clip in clips) / 16000 / 60
    assert 0.51 < minutes < 1.49
    run(corpus, tmp_path)
    header = read_header(tmp_path / "averaged.safetensors")
    assert (header.kind, header.data) == ("mmtalker", "1 min of speech, with synthetic faces of 2 subjects")


def test_a_corpus_of_short_clips_is_refused(corpus, tmp_path, monkeypatch):
    short = replace(heard(), contact=heard().contact[:100])
    monkeypatch.setattr("training.mmtalker.hear_corpus", lambda *arguments, held_out: [short])
    with pytest.raises(MalformedInput, match=r"no clip of .* is longer than 1 s"):
        run(corpus, tmp_path / "run")
    assert not (tmp_path / "run").exists()


def test_a_run_names_the_encoder_that_it_heard_with(corpus, tmp_path):
    run(corpus, tmp_path, encoder=tiny_speech(), config=replace(CONFIG, features=9, encoder="somebody/hubert"))
    config = load_mmtalker(tmp_path / "averaged.safetensors", tiny_head().atlas).config
    assert (config.encoder, config.features) == ("somebody/hubert", tiny_speech().width)


@pytest.mark.parametrize("switch", ["ste", "rgcn", "dcam"])
def test_an_ablation_trains_and_loads(corpus, tmp_path, switch):
    network = run(corpus, tmp_path, config=replace(CONFIG, **{switch: False}))
    loaded = load_mmtalker(tmp_path / "averaged.safetensors", tiny_head().atlas)
    assert getattr(loaded.config, switch) is False
    assert all(torch.equal(tensor, network.state_dict()[name]) for name, tensor in loaded.state_dict().items())


def test_a_run_that_goes_on_gives_what_an_uncut_one_gives(corpus, tmp_path):
    """Bit for bit on one thread, though points are drawn by a density that is trained."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        for steps in (2, 4):
            run(corpus, tmp_path / "cut", steps)
        run(corpus, tmp_path / "uncut", 4)
    finally:
        torch.set_num_threads(threads)
    cut, uncut = (read_tensors(tmp_path / name / "state.safetensors") for name in ("cut", "uncut"))
    assert cut.keys() == uncut.keys()
    assert all(torch.equal(cut[name], uncut[name]) for name in cut)
    assert not torch.equal(cut["module/log_density"], log_density())
