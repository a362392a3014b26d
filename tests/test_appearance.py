"""How textures are judged: what a face is, closed-form PSNR and SSIM, and whose pivots a test speaks with."""

import io
import json
from collections.abc import Iterator
from dataclasses import asdict, replace
from functools import cache
from typing import cast

import numpy as np
import pytest
import torch
from PIL import Image
from scipy.ndimage import binary_dilation
from test_face import small_rig
from test_mmtalker_training import write_corpus
from tiny import TORCH, shipped_head, speech
from tiny_engine import tiny_networks, tiny_styles
from tiny_textalker import DENOISER, MOTION, WRINKLE, PlainField, face, tiny_autoencoder, tiny_decoders, tiny_denoiser
from torch import Tensor

from models.core import SAMPLE_RATE_HZ
from models.engine import Networks
from models.mmtalker.blinks import BlinkTrack
from models.performance import Pivots
from models.template import Head
from models.textalker.encoding import BATCH
from models.textalker.maps import from_network, log_ratio
from models.textalker.streaming import TexTalkerMotion
from training import appearance
from training.appearance import (
    Judge,
    Performance,
    Skin,
    TextureErrors,
    appearance_report,
    cut,
    face_texels,
)
from training.corpus.coarticulation import RATE_HZ
from training.datasets.corpus import Corpus, CorpusClip
from training.evaluate import Talker
from training.latents import EncodedClip, Latents, frames_of
from training.lpips import Lpips

SIZE = WRINKLE.size
EXACT = TextureErrors(pytest.approx(10 * np.log10(255**2 / 1e-6)), pytest.approx(1))


class PlainCanvas:
    """In place of a Canvas: the face is the upper half of the tiny head."""

    def __init__(self, head: Head) -> None:
        self.head = head

    def face(self) -> np.ndarray:
        inside = np.zeros(len(self.head.atlas.vertices))
        inside[self.head.regions["upper_face"]] = 1
        return inside


@cache
def pictured() -> Head:
    """The tiny head with a texture of noise."""
    file = io.BytesIO()
    noise = np.random.default_rng(0).integers(60, 220, (2 * SIZE, 2 * SIZE, 3), np.uint8)
    Image.fromarray(noise).save(file, "png")
    return replace(face(), base_color_png=file.getvalue())


def networks() -> Networks:
    return replace(tiny_networks(), head=pictured())


def talker(engine: str = "textalker") -> Talker:
    style = tiny_styles()[0]
    return Talker(networks(), engine, Pivots(style.motion, style.wrinkle))


@pytest.fixture(autouse=True)
def small(monkeypatch: pytest.MonkeyPatch) -> None:
    """A tiny head has no landmarks, and tiny clips are short."""
    monkeypatch.setattr(appearance, "Canvas", PlainCanvas)
    monkeypatch.setattr(appearance, "WrinkleField", PlainField)
    for name, value in (("EXAMPLE_S", 0.5), ("SHORTEST_S", 0.5), ("LONGEST_S", 0.8)):
        monkeypatch.setattr(appearance, name, value)


@pytest.fixture(scope="module")
def corpus(tmp_path_factory: pytest.TempPathFactory) -> Corpus:
    return write_corpus(tmp_path_factory.mktemp("corpus") / "built")


@pytest.fixture(scope="module")
def latents(tmp_path_factory: pytest.TempPathFactory) -> Latents:
    """S00 and S01 have spoken before; `first`, `second` and S02's `short` are kept for the test."""
    folder, random = tmp_path_factory.mktemp("latents"), np.random.default_rng(0)
    clips = [
        EncodedClip("a", "S00", 0, 3, False),
        EncodedClip("b", "S00", 3, 4, False),
        EncodedClip("c", "S01", 7, 2, False),
        EncodedClip("first", "S00", 9, 2, True),
        EncodedClip("second", "S01", 11, 2, True),
    ]
    for name, width in (("motion", MOTION.latents), ("wrinkle", WRINKLE.latents)):
        np.save(folder / f"{name}.npy", random.standard_normal((13, width)).astype(np.float16))
    description = {"autoencoders": "", "parts": ["motion", "wrinkle"], "clips": [asdict(clip) for clip in clips]}
    (folder / "latents.json").write_text(json.dumps(description))
    return Latents(folder)


@pytest.fixture
def judge(corpus: Corpus) -> Judge:
    return Judge(networks(), corpus)


# The face.


def test_the_face_is_skin_in_front(monkeypatch):
    """On the shipped head: nose and forehead are of it; eyes, teeth and all that is behind the throat are not."""
    monkeypatch.undo()
    head, size = shipped_head(), 128
    texels = face_texels(head, size)
    raster = head.atlas.rasterise(size)
    places = head.atlas.paint(head.atlas.vertices, raster)[texels]
    assert (head.atlas.chart[raster.face[texels]] == head.charts.index("skin")).all()
    assert raster.covered[texels].all()
    assert 0.05 < texels.mean() < 0.6
    nose = head.atlas.vertices[head.atlas.vertices[:, 2].argmax()]
    brow = head.atlas.vertices[head.regions["eyes"]].mean(0) + np.array([0, 0.035, 0])
    for wanted in (nose, brow):
        assert np.linalg.norm(places - wanted, axis=1).min() < 0.02
    assert places[:, 2].min() > 0.06


# Textures.


def test_a_texture_is_the_neutral_one_times_the_exponential_of_the_map():
    """Rounded, and within 0 to 255."""
    skin = Skin(pictured(), SIZE)
    ratios = np.zeros((4, SIZE, SIZE, 3), np.float16)
    ratios[1], ratios[2], ratios[3] = np.log(0.5), 1.5, -1.5
    neutral, half, bright, dark = skin.textures(ratios)
    assert np.array_equal(neutral, np.round(skin.base))
    assert np.abs(half - skin.base / 2).max() <= 0.6
    assert bright.max() == 255
    assert np.abs(dark - skin.base * np.exp(-1.5)).max() <= 0.6
    assert neutral.dtype == np.uint8


def test_the_neutral_texture_is_averaged_over_texels():
    """Its size is half the picture's."""
    picture = np.asarray(Image.open(io.BytesIO(pictured().base_color_png)), float)
    means = picture.reshape(SIZE, 2, SIZE, 2, 3).mean((1, 3))
    assert np.abs(Skin(pictured(), SIZE).base - means).max() <= 1


def looks(frames: int = 2) -> np.ndarray:
    return np.random.default_rng(1).integers(50, 200, (frames, SIZE, SIZE, 3), np.uint8)


def test_equal_textures_are_as_like_as_can_be():
    assert Skin(pictured(), SIZE).errors(looks(), looks()) == EXACT


def test_psnr_is_of_all_frames_together():
    """0 and 10 levels off: a mean square of 50, whose dB are not the mean of both frames'."""
    guess = looks()
    guess[1] += 10
    errors = Skin(pictured(), SIZE).errors(guess, looks())
    assert errors.psnr_db == pytest.approx(10 * np.log10(255**2 / 50), abs=1e-4)


def test_what_is_off_the_face_does_not_count():
    """Beyond the reach of SSIM's window, five texels, that is."""
    skin = Skin(pictured(), SIZE)
    away = ~binary_dilation(skin.face, np.ones((11, 11)))
    assert away.sum() > 50
    guess = looks()
    guess[:, away] = 0
    assert skin.errors(guess, looks()) == EXACT
    guess[:, skin.face] = 0
    assert skin.errors(guess, looks()).psnr_db < 15


def test_lpips_sees_the_face_alone_and_only_if_it_is_there():
    def differing(one: Tensor, other: Tensor) -> Tensor:
        return (one != other).float().mean((1, 2, 3))

    skin = Skin(pictured(), SIZE, cast(Lpips, differing))
    rows, columns = np.nonzero(skin.face)
    box = (np.ptp(rows) + 1) * (np.ptp(columns) + 1)
    assert skin.errors(looks(), 255 - looks()).lpips == pytest.approx(skin.face.sum() / box, rel=1e-6)
    assert Skin(pictured(), SIZE).errors(looks(), looks()).lpips is None


def test_similarity_is_that_of_torchmetrics():
    """Where everything is face."""
    functional = pytest.importorskip("torchmetrics.functional.image")
    skin = Skin(pictured(), SIZE)
    skin.face = np.ones((SIZE, SIZE), bool)
    guess, truth = (looks() // 2 + 40, looks())
    images = [torch.from_numpy(each.transpose(0, 3, 1, 2) / 255) for each in (guess, truth)]
    wanted = functional.structural_similarity_index_measure(*images, data_range=1.0)
    assert skin.errors(guess, truth).ssim == pytest.approx(float(wanted), abs=1e-5)
    assert 0.1 < float(wanted) < 0.9


def test_a_long_sequence_is_the_mean_of_its_frames():
    """Of batches that are not equally long, each frame counts alike."""
    skin, guess, truth = Skin(pictured(), SIZE), looks(BATCH + 3), looks(BATCH + 3)
    guess[BATCH:] //= 2
    each = [skin.errors(guess[k : k + 1], truth[k : k + 1]).ssim for k in range(len(truth))]
    assert skin.errors(guess, truth).ssim == pytest.approx(np.mean(each), abs=1e-6)


# Sequences.


@pytest.mark.parametrize("longest_s", [0.5, 1e3])
def test_a_clip_is_cut_at_its_end(longest_s, corpus):
    """Sound and tracks alike; a shorter one stays whole."""
    clip = next(corpus.clips(held_out=False))
    short = cut(clip, longest_s)
    count = min(int(longest_s * RATE_HZ), len(clip.contact))
    assert len(short.samples) == min(int(longest_s * SAMPLE_RATE_HZ), len(clip.samples))
    for name in ("weights", "contact", "blinks"):
        assert np.array_equal(getattr(short, name), getattr(clip, name)[:count])
    assert (short.id, short.subject, short.phones) == (clip.id, clip.subject, clip.phones)


def test_unseen_sequences_are_those_that_were_kept_with_their_subjects_pivots(judge, latents):
    """Pivots are of the subject's other clips."""
    first, second = judge.unseen_sequences(latents, 9)
    assert [(each.clip.id, each.clip.subject) for each in (first, second)] == [("first", "S00"), ("second", "S01")]
    assert first.pivots.motion == pytest.approx(latents.part("motion")[:7].astype(float).mean(0), abs=1e-6)
    assert second.pivots.wrinkle == pytest.approx(latents.part("wrinkle")[7:9].astype(float).mean(0), abs=1e-6)
    depths = {subject.id: subject.wrinkles.depth["forehead"] for subject in judge.corpus.subjects}
    assert (first.field.depth, second.field.depth) == (depths["S00"], depths["S01"])
    assert len(first.clip.samples) == 0.8 * SAMPLE_RATE_HZ
    assert [each.clip.id for each in judge.unseen_sequences(latents, 1)] == ["first"]


def test_every_subject_has_a_turn_before_one_has_two(judge, latents, monkeypatch):
    clips = list(judge.corpus.clips(held_out=False))[:2]
    spoken = [replace(clips[n], id=str(k)) for k, n in enumerate((0, 0, 0, 1, 1))]
    monkeypatch.setattr(Corpus, "clips", lambda self, held_out: iter(spoken))
    kept = [EncodedClip(clip.id, clip.subject, 0, 1, True) for clip in spoken]
    latents = Latents(latents.folder)
    latents.__dict__["clips"] = (*latents.clips, *kept)
    assert [each.clip.id for each in judge.unseen_sequences(latents, 4)] == ["0", "3", "1", "4"]


def test_unseen_subjects_are_judged_on_clips_that_their_pivots_are_not_made_of(judge, corpus):
    """S03 says two things: the first gives the pivots, and the second is judged."""
    first, second = corpus.clips(held_out=True)
    (performance,) = judge.unseen_subjects(5)
    assert (performance.clip.id, performance.clip.subject) == (second.id, "S03")
    weights, contact, _ = frames_of(first)
    offsets = small_rig().offsets(weights[:15], contact[:15])
    ratios = performance.field.maps(performance.field.activations(offsets, contact[:15]), SIZE)
    encoders = tiny_networks().encoders
    assert performance.pivots.motion == pytest.approx(encoders.motion(offsets).mean(0), abs=1e-3)
    assert performance.pivots.wrinkle == pytest.approx(encoders.wrinkles(ratios).mean(0), abs=1e-3)


@pytest.mark.parametrize(("name", "value"), [("EXAMPLE_S", 60.0), ("SHORTEST_S", 60.0)])
def test_a_subject_with_nothing_left_to_judge_is_left_out(judge, monkeypatch, name, value):
    monkeypatch.setattr(appearance, name, value)
    assert list(judge.unseen_subjects(5)) == []


# Judging.


def truth_of(judge: Judge, performance: Performance) -> tuple[np.ndarray, np.ndarray]:
    """What the corpus says: canonical offsets, and log-ratios."""
    weights, contact, _ = frames_of(performance.clip)
    offsets = judge.rig.offsets(weights, contact)
    return offsets, performance.field.maps(performance.field.activations(offsets, contact), judge.size)


def performances(judge: Judge, latents: Latents) -> list[Performance]:
    return list(judge.unseen_sequences(latents, 2))


def test_the_truth_has_no_error(judge, latents, monkeypatch):
    """Nor does it look different, but for rounding."""
    own = {each.clip.samples.tobytes(): truth_of(judge, each) for each in performances(judge, latents)}
    monkeypatch.setattr(Judge, "_spoken", lambda self, talker, clip: own[clip.samples.tobytes()])
    rows = judge.judge(performances(judge, latents), {"truth": talker()}, 1, {})
    assert rows["truth"]["mve_mm"] == rows["truth"]["fdd_abs_mm"] == 0
    assert rows["truth"]["psnr_db"] > 60
    assert rows["truth"]["ssim"] > 0.9999
    assert rows["static"]["mve_mm"] > 1
    assert rows["static"]["psnr_db"] < rows["truth"]["psnr_db"]


def test_a_static_face_is_as_wrong_as_its_subject_moves_and_wrinkles(judge, latents):
    """By hand, on heads of their own sizes; sequences count alike."""
    upper, scale = judge.head.regions["upper_face"], {"S00": 1.0, "S01": 1.1}
    largest, psnr_db = [], []
    for each in performances(judge, latents):
        offsets, ratios = truth_of(judge, each)
        moved = 1e3 * scale[each.clip.subject] * np.linalg.norm(offsets[:, upper], axis=2)
        largest.append(moved.max(1).mean())
        base = judge.skin.base[judge.skin.face]
        changed = np.round(base * np.exp(ratios[:, judge.skin.face])) - np.round(base)
        psnr_db.append(10 * np.log10(255**2 / np.square(changed).mean()))
    static = judge.judge(performances(judge, latents), {}, 1, {})["static"]
    assert static["mve_mm"] == pytest.approx(np.mean(largest), rel=1e-3)
    assert static["psnr_db"] == pytest.approx(np.mean(psnr_db), abs=0.01)


def test_the_ceiling_is_the_truth_through_the_auto_encoders(judge, latents):
    """Whoever else is judged."""
    performance = performances(judge, latents)[0]
    weights, contact, _ = frames_of(performance.clip)
    maker = judge.maker(performance.field)
    images = maker.wrinkles(weights, contact, [0] * len(weights))
    _, seen = judge._ceiling(maker.motion(weights, contact), images)
    with torch.no_grad():
        wanted = log_ratio(from_network(tiny_autoencoder(WRINKLE)(torch.from_numpy(images)).numpy()))
    texels = judge.skin.face
    assert seen[:, texels] == pytest.approx(wanted.transpose(0, 2, 3, 1)[:, texels], abs=1e-4)
    alone, beside = (judge.judge([performance], others, 1, {})["ceiling"] for others in ({}, {"one": talker()}))
    assert alone == beside


def test_an_engine_without_wrinkles_looks_as_a_static_face_does(judge, latents):
    rows = judge.judge(performances(judge, latents), {"mmtalker": talker("mmtalker"), "textalker": talker()}, 1, {})
    for name in ("psnr_db", "ssim"):
        assert rows["mmtalker"][name] == rows["static"][name]
        assert rows["textalker"][name] != rows["static"][name]
    assert len({row["mve_mm"] for row in rows.values()}) == 4


@pytest.mark.parametrize(
    ("modalities", "still", "lively"), [("motion", "wrinkles", "offsets"), ("wrinkle", "offsets", "wrinkles")]
)
def test_what_an_ablation_does_not_make_stays_at_the_pivot(judge, latents, modalities, still, lively):
    """And it is judged like the whole."""
    denoiser = tiny_denoiser(replace(DENOISER, modalities=modalities))
    network = TexTalkerMotion(face(), denoiser, tiny_decoders(), TORCH, "ddim", 2)
    ablation = replace(talker(), networks=replace(networks(), textalker=network))
    batches = list(ablation.speak(speech(1.0), face().atlas.vertex_anchors, BlinkTrack(0), 30.0))
    spread = {
        name: np.ptp(np.concatenate([getattr(batch, name) for batch in batches]), 0).max() for name in (still, lively)
    }
    assert spread[still] < 1e-6 < spread[lively]
    rows = judge.judge(performances(judge, latents), {"ablation": ablation}, 1, {})
    assert np.isfinite(list(rows["ablation"].values())).all()


def test_errors_are_means_over_seeds(judge, latents):
    performance, own = performances(judge, latents)[0], talker()
    errors = [
        judge.skin.errors(judge.skin.textures(look), truth(judge, performance)) for look in seen(judge, performance)
    ]
    row = judge.judge([performance], {"textalker": own}, 3, {})["textalker"]
    assert row["psnr_db"] == pytest.approx(np.mean([error.psnr_db for error in errors]))
    assert row["ssim"] == pytest.approx(np.mean([error.ssim for error in errors]))
    assert len({error.psnr_db for error in errors}) == 3


def truth(judge: Judge, performance: Performance) -> np.ndarray:
    _, ratios = truth_of(judge, performance)
    return judge.skin.textures(ratios)


def seen(judge: Judge, performance: Performance) -> Iterator[np.ndarray]:
    """Three seeds' wrinkles, with the pivots of the performance."""
    for seed in range(3):
        yield judge._spoken(replace(talker(), pivots=performance.pivots, seed=seed), performance.clip)[1]


# The report.


def test_both_tests_are_reported(corpus, latents):
    report = appearance_report({"shipped": talker()}, corpus, latents, 1, 1, 2)
    assert report.keys() == {"a", "b", "sequences", "seeds", "face_texels", "size"}
    assert report["a"].keys() == report["b"].keys() == {"static", "ceiling", "shipped"}
    assert (report["sequences"], report["seeds"], report["size"]) == ({"a": 1, "b": 1}, 2, SIZE)
    assert report["face_texels"] == face_texels(pictured(), SIZE).sum()
    assert json.loads(json.dumps(report)) == report


def test_everybody_speaks_with_the_subjects_pivots_but_who_was_trained_without(corpus, latents, monkeypatch):
    """That network has the mean of all subjects' pivots, whoever speaks; pivots that talkers came with are not used."""
    spoken: dict[tuple[str, int], list[Pivots]] = {}

    def note(self: Judge, own: Talker, clip: CorpusClip) -> tuple[np.ndarray, np.ndarray]:
        spoken.setdefault((own.engine, own.seed), []).append(own.pivots)
        count = len(frames_of(clip)[0])
        return np.zeros((count, len(face().atlas.vertices), 3), np.float32), np.zeros((count, SIZE, SIZE, 3))

    monkeypatch.setattr(Judge, "_spoken", note)
    talkers = {"full": talker("full"), "without-pivot": talker("without")}
    appearance_report(talkers, corpus, latents, 2, 1, 2, unpivoted=["without-pivot"])
    assert spoken.keys() == {("full", 0), ("full", 1), ("without", 0), ("without", 1)}
    own = [latents.pivots("motion")[subject] for subject in ("S00", "S01")]
    for seed in (0, 1):
        assert np.array_equal([pivots.motion for pivots in spoken["full", seed][:2]], own)
        assert len({pivots.wrinkle.tobytes() for pivots in spoken["full", seed]}) == 3
        for pivots in spoken["without", seed]:
            assert pivots.motion == pytest.approx(np.mean(own, axis=0), abs=1e-6)
