"""What the reports say: the truth scores nothing, a static face what its distance is, and baselines stand beside."""

import json
from collections.abc import Mapping
from dataclasses import asdict, replace
from functools import partial
from pathlib import Path
from shutil import copytree

import numpy as np
import pytest
from test_face import small_rig
from test_mmtalker_training import write_corpus
from test_spoken import listed, only
from tiny import TORCH, noise, speech, tiny_head, tiny_network
from tiny_engine import tiny_networks, tiny_styles, write_weights
from tiny_textalker import DENOISER, face, tiny_decoders, tiny_denoiser

from models.backend import autoencoders_id
from models.checkpoint import Header, file_sha256, pin, save_checkpoint
from models.core import StylePivot, Waveform, frame_count
from models.engine import ENGINES, Sampling
from models.errors import CheckpointError, UnknownName
from models.mmtalker.network import MMTalker
from models.mmtalker.streaming import MMTalkerMotion
from models.performance import Pivots
from models.pivots import save_styles
from models.puppet import MotionBatch
from models.textalker.streaming import TexTalkerMotion
from training import evaluate
from training.corpus.coarticulation import RATE_HZ
from training.corpus.face import ACTIONS, middle_gap_mm
from training.datasets.corpus import Corpus, CorpusClip, tracks_at
from training.datasets.spoken import SpokenClip
from training.evaluate import (
    Talker,
    TrueLids,
    corpus_report,
    lips_of,
    mean_offsets,
    offsets_of,
    open_talker,
    speech_report,
    true_offsets,
)
from training.lipsync import bootstrap, oracle_track, score
from training.noise import add_noise

PHONES = [["ih", 0.0, 0.08], ["n", 0.08, 0.14], ["b", 0.14, 0.18], ["iy", 0.18, 0.31], ["ng", 0.31, 0.4]]
PHONES += [["k", 0.4, 0.5], ["aa", 0.5, 0.7], ["m", 0.7, 0.8], ["p", 0.8, 0.9], ["eh", 0.9, 1.2]]
JAW = ACTIONS.index("jawOpen")
STYLES = {pivot.id: pivot for pivot in tiny_styles()}
NEUTRAL = STYLES["neutral"]


def talker(network: MMTalker | None = None, style: StylePivot = NEUTRAL) -> Talker:
    """MMTalker in a style, perhaps with another network."""
    motion = MMTalkerMotion(network, tiny_head().atlas, TORCH) if network else None
    return Talker(tiny_networks(motion), "mmtalker", Pivots(style.motion, None))


def textalker(style: StylePivot = NEUTRAL, seed: int = 0) -> Talker:
    """TexTalker in a style."""
    return Talker(tiny_networks(), "textalker", Pivots(style.motion, style.wrinkle), seed)


def touching(logit: float) -> MMTalker:
    """A network that says one thing of labial contact, always."""
    network = tiny_network()
    network.audio.contact[-1].weight.data.zero_()
    network.audio.contact[-1].bias.data.fill_(logit)
    return network


@pytest.fixture(scope="module")
def corpus(tmp_path_factory: pytest.TempPathFactory) -> Corpus:
    return write_corpus(tmp_path_factory.mktemp("corpus") / "built")


@pytest.fixture(scope="module")
def unseen(corpus: Corpus) -> list[CorpusClip]:
    return list(corpus.clips(held_out=True))


@pytest.fixture(scope="module")
def report(corpus: Corpus, unseen: list[CorpusClip]) -> Mapping[str, Mapping]:
    return corpus_report(
        {"one": talker(), "other": talker(tiny_network(seed=1)), "textalker": textalker()}, corpus, unseen
    )


@pytest.fixture
def clip(tmp_path: Path) -> SpokenClip:
    """1.2 s of the recorded clip, with its phones."""
    record = {"file": "speech/clip.flac", "speaker": "LJ", "phones": PHONES, "alignment_score": -12.0}
    return only(listed(tmp_path / "speech", record))


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    """Torch instead of ONNX, and few rounds of the bootstrap."""
    monkeypatch.setattr(evaluate, "open_runtime", lambda device, cache: TORCH)
    monkeypatch.setattr(evaluate, "bootstrap", partial(bootstrap, rounds=10))


# The networks under test.


@pytest.fixture(scope="module")
def weights(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_weights(tmp_path_factory.mktemp("weights"))


@pytest.mark.parametrize("made", [talker(), textalker()], ids=ENGINES)
def test_a_talker_is_opened_from_a_folder_of_weights(made, weights, tmp_path):
    """In the neutral style."""
    opened = open_talker(weights, tmp_path, made.engine, sampling=Sampling("dpm_solver_2m", 3))
    one, other = (lips_of(each, speech(1.3), 130) for each in (opened, made))
    assert np.array_equal(one, other)


@pytest.mark.parametrize("make", [talker, textalker])
def test_a_talker_speaks_in_a_shipped_style(make, weights, tmp_path):
    """Without wrinkles, which cost time."""
    opened = open_talker(weights, tmp_path, make().engine, style="lively", sampling=Sampling("dpm_solver_2m", 3))
    heard, lively, plain = (lips_of(each, speech(0.5), 50) for each in (opened, make(style=STYLES["lively"]), make()))
    assert np.array_equal(heard, lively)
    assert not np.array_equal(heard, plain)
    assert opened.pivots.wrinkle is None


def test_a_talker_is_sampled_as_it_is_asked_to(weights, tmp_path):
    lips = [
        lips_of(open_talker(weights, tmp_path, "textalker", sampling=Sampling("ddim", n)), speech(0.5), 50)
        for n in (2, 5)
    ]
    assert not np.array_equal(*lips)


def test_a_style_that_was_not_shipped_is_refused(weights, tmp_path):
    with pytest.raises(UnknownName, match="unknown style 'nobody'; known: calm, lively, neutral, smooth"):
        open_talker(weights, tmp_path, style="nobody")


def test_another_checkpoint_takes_the_place_of_the_pinned_one(weights, tmp_path):
    other = tiny_network(seed=1)
    save_checkpoint(tmp_path / "run.safetensors", other.state_dict(), Header("mmtalker", asdict(other.config)))
    opened = open_talker(weights, tmp_path, "mmtalker", tmp_path / "run.safetensors")
    heard, wanted, pinned = (lips_of(each, speech(0.5), 50) for each in (opened, talker(other), talker()))
    assert np.array_equal(heard, wanted)
    assert not np.array_equal(heard, pinned)
    assert opened.networks.checkpoints["mmtalker"] == file_sha256(tmp_path / "run.safetensors")


def test_another_denoiser_takes_the_place_of_the_pinned_one(weights, tmp_path):
    other = tiny_denoiser(seed=1)
    save_checkpoint(tmp_path / "run.safetensors", other.state_dict(), Header("textalker", asdict(other.config)))
    sampling = Sampling("dpm_solver_2m", 3)
    run, pinned = (
        open_talker(weights, tmp_path, "textalker", path, sampling=sampling)
        for path in (tmp_path / "run.safetensors", None)
    )
    motion = TexTalkerMotion(face(), other, tiny_decoders(), TORCH, sampling.name, sampling.steps)
    wanted = replace(textalker(), networks=replace(tiny_networks(), textalker=motion))
    heard, wanted, plain = (lips_of(each, speech(0.5), 50) for each in (run, wanted, pinned))
    assert np.array_equal(heard, wanted)
    assert not np.array_equal(heard, plain)


def digests(weights: Path) -> dict[str, str]:
    manifest = json.loads((weights / "manifest.json").read_text())
    return {name: entry["sha256"] for name, entry in manifest.items()}


def save_other(path: Path, engine: str, **changes: object) -> Path:
    """A network that was trained on something else."""
    network = (
        tiny_network(replace(tiny_network().config, **changes))
        if engine == "mmtalker"
        else tiny_denoiser(replace(DENOISER, **changes))
    )
    save_checkpoint(path, network.state_dict(), Header(engine, asdict(network.config)))
    return path


@pytest.mark.parametrize(
    ("engine", "changes", "other"),
    [
        ("mmtalker", {"features": 9}, "another speech encoder"),
        ("textalker", {"features": 9}, "another speech encoder"),
        ("mmtalker", {"encoder_sha256": "0" * 64}, "another speech encoder"),
        ("textalker", {"encoder_sha256": "0" * 64}, "another speech encoder"),
        ("textalker", {"encoder": "facebook/hubert-base-ls960"}, "another speech encoder"),
        ("mmtalker", {"pivot": 9}, "another auto-encoder"),
        ("mmtalker", {"autoencoder_sha256": "0" * 64}, "another auto-encoder"),
        ("textalker", {"autoencoders": "0" * 33}, "other auto-encoders"),
    ],
)
def test_a_network_that_was_trained_on_another_is_refused(engine, changes, other, weights, tmp_path):
    """By width, by name, and by sha256: another of the same width means something else by its numbers."""
    path = save_other(tmp_path / "run.safetensors", engine, **changes)
    with pytest.raises(CheckpointError, match=f"run.safetensors was trained on {other} than .* holds"):
        open_talker(weights, tmp_path, engine, path)


def test_a_network_is_opened_with_what_it_was_trained_on(weights, tmp_path):
    own = digests(weights)
    trained = {
        "mmtalker": {"encoder_sha256": own["speech"], "autoencoder_sha256": own["textalker-motion"]},
        "textalker": {"encoder_sha256": own["speech"], "autoencoders": autoencoders_id(own)},
    }
    for engine, changes in trained.items():
        open_talker(weights, tmp_path, engine, save_other(tmp_path / engine, engine, **changes))


def test_styles_of_other_auto_encoders_are_refused(weights, tmp_path):
    folder = Path(copytree(weights, tmp_path / "weights"))
    save_styles(folder / "styles.safetensors", tiny_styles(), "others")
    pin(folder, "styles", folder / "styles.safetensors")
    with pytest.raises(CheckpointError, match="holds no styles of these weights"):
        open_talker(folder, tmp_path)


def test_a_folder_without_weights_is_refused(tmp_path):
    with pytest.raises(CheckpointError, match=r"no .*manifest\.json"):
        open_talker(tmp_path, tmp_path)


# Noise.


@pytest.mark.parametrize("snr_db", [30.0, 10.0, 0.0])
def test_noise_is_as_loud_as_asked(snr_db):
    quiet = Waveform(noise(32000) * np.float32(0.1))
    added = add_noise(quiet, snr_db).samples.astype(float) - quiet.samples
    ratio = np.mean(quiet.samples.astype(float) ** 2) / np.mean(added**2)
    assert 10 * np.log10(ratio) == pytest.approx(snr_db, abs=0.01)


def test_noise_is_of_its_seed():
    one, same, other = (add_noise(speech(0.5), 10, seed).samples for seed in (0, 0, 1))
    assert np.array_equal(one, same)
    assert not np.array_equal(one, other)


def test_what_is_too_loud_is_turned_down_as_a_whole():
    """So that the ratio stays: a mixture of the same shape, its peak 1."""
    loud = Waveform(noise(32000))
    mixed = add_noise(loud, -20.0).samples.astype(float)
    quiet = add_noise(Waveform(loud.samples * np.float32(1e-3)), -20.0).samples.astype(float)
    assert np.abs(mixed).max() == pytest.approx(1)
    assert mixed == pytest.approx(quiet / np.abs(quiet).max(), abs=1e-5)


def test_noise_is_flat_up_to_500_hz_and_falls_by_6_db_an_octave():
    tone = Waveform(np.full(160_000, 0.01, np.float32))
    power = np.abs(np.fft.rfft(add_noise(tone, 20.0).samples.astype(float) - tone.samples)) ** 2
    frequency = np.fft.rfftfreq(160_000, 1 / 16_000)

    def level_db(hertz: float) -> float:
        return float(10 * np.log10(power[(frequency > 0.9 * hertz) & (frequency < 1.1 * hertz)].mean()))

    assert level_db(150) - level_db(400) == pytest.approx(0, abs=1)
    assert level_db(400) - level_db(1000) == pytest.approx(6, abs=1)
    assert level_db(1000) - level_db(2000) == pytest.approx(6, abs=1)
    assert level_db(2000) - level_db(4000) == pytest.approx(6, abs=1)


def test_silence_stays_silent():
    assert not add_noise(Waveform(np.zeros(8000, np.float32)), 10.0).samples.any()


# Lips.


@pytest.mark.parametrize(("seconds", "count"), [(1.0, 100), (0.305, 30), (2.35, 235)])
def test_lips_are_tracked_100_times_a_second(seconds, count):
    opening, rounding = lips_of(talker(), speech(seconds), count)
    assert opening.shape == rounding.shape == (count,)
    assert opening.dtype == rounding.dtype == np.float32
    assert np.isfinite([opening, rounding]).all()
    assert opening.min() >= 0
    assert rounding.max() < 0


def test_lips_that_touch_are_not_open():
    """But for a tenth, on a patch with three columns a lip: where the same motion without contact opens them."""
    apart, shut = (lips_of(talker(touching(logit)), speech(1.0), 100)[0] for logit in (-100.0, 100.0))
    assert apart.mean() > 0.2
    assert shut.mean() < 0.1 * apart.mean()


def test_opening_and_rounding_are_the_rims(monkeypatch):
    """A jaw that drops by 11 mm, corners that spread by a fifth, and then contact, at 50 fps: read between frames too.

    Lips that lie over each other are 0 mm open, not less.
    """
    head, rig = tiny_head(), small_rig()
    time_s = np.arange(-10, 50, dtype=np.float32) / 50
    rim = 0.4 * time_s[:, None, None] * rig.basis[JAW, head.rim]
    rim[..., 0] += 0.2 * time_s[:, None] * head.atlas.vertices[head.rim, 0]
    contact = (time_s >= 0.8).astype(np.float32)
    motion = [MotionBatch(k, *(part[k : k + 16] for part in (time_s, rim, rim, contact))) for k in range(0, 60, 16)]
    monkeypatch.setattr(Talker, "speak", lambda *arguments: iter(motion))
    opening, rounding = lips_of(talker(), speech(1.2), 120)
    at_s, width_mm = np.arange(-20, 78) / 100, 1e3 * np.ptp(head.atlas.vertices[head.rim, 0])
    wanted = 0.4 * at_s * rig.gaps_mm[JAW]
    assert opening[:98] == pytest.approx(np.maximum(wanted, 0), abs=1e-3)
    assert opening[100:].max() < 0.1 * wanted.max()
    assert rounding[:98] == pytest.approx(-width_mm * (1 + 0.2 * at_s), abs=1e-3)


# The report on speech.


def test_speech_is_reported_beside_the_oracle_and_loudness(clip):
    result = speech_report(talker(), [clip])
    assert result.keys() == {"mmtalker", "oracle", "loudness", "clips", "speakers", "noise_db"}
    assert (result["clips"], result["speakers"], result["noise_db"]) == (1, 1, None)
    phones, _ = clip.aligned(clip.waveform())
    assert result["oracle"] == asdict(score([oracle_track("LJ", phones, 120)]))
    assert (result["oracle"]["bcr"], result["oracle"]["r0"]) == (1, pytest.approx(1))
    assert result["loudness"]["rnd"] == 0
    for name in ("mmtalker", "oracle", "loudness"):
        assert result[name]["bilabials"] == 3
    assert json.loads(json.dumps(result))["mmtalker"]["sel"] == result["mmtalker"]["sel"]


def test_the_engine_under_test_is_named(clip):
    result = speech_report(textalker(), [clip])
    assert result.keys() == {"textalker", "oracle", "loudness", "clips", "speakers", "noise_db"}
    assert result["textalker"] != speech_report(textalker(seed=1), [clip])["textalker"]


def test_the_engines_figures_come_with_intervals(clip):
    """They hold the figure, or of one clip are it."""
    result = speech_report(talker(), [clip])
    assert result["mmtalker"]["intervals"].keys() == {"sel", "vcc", "rnd"}
    for name, (low, high) in result["mmtalker"]["intervals"].items():
        assert low == high == pytest.approx(result["mmtalker"][name])
    assert "intervals" not in result["oracle"] | result["loudness"]


def test_speakers_are_counted_once_and_drawn_as_a_whole(clip, monkeypatch):
    """Each track is its clip's speaker's: intervals are of speakers."""
    clips = [clip, replace(clip, id="again"), replace(clip, id="third", speaker="other")]
    drawn: list[str] = []
    monkeypatch.setattr(evaluate, "bootstrap", lambda tracks: drawn.extend(track.speaker for track in tracks))
    result = speech_report(talker(), clips)
    assert (result["clips"], result["speakers"]) == (3, 2)
    assert result["mmtalker"]["bilabials"] == 9
    assert drawn == ["LJ", "LJ", "other"]


def test_under_noise_the_oracle_stays_and_the_others_hear_it(clip):
    plain, noisy = (speech_report(talker(), [clip], noise_db) for noise_db in (None, 0.0))
    assert noisy["noise_db"] == 0
    assert noisy["oracle"] == plain["oracle"]
    assert noisy["mmtalker"] != plain["mmtalker"]
    assert noisy["loudness"] != plain["loudness"]


def test_a_clip_is_judged_as_far_as_its_phones_go(clip, monkeypatch):
    """1.208 s of 1.9: the aligner's times are 8 ms early."""
    asked = []

    def lips(talker: Talker, waveform: Waveform, count: int) -> tuple[np.ndarray, np.ndarray]:
        asked.append((waveform.duration_s, count))
        return np.linspace(0, 9, count), np.linspace(0, 1, count)

    monkeypatch.setattr(evaluate, "lips_of", lips)
    speech_report(talker(), [clip])
    assert asked == [(pytest.approx(1.208, abs=1e-4), 120)]


def test_an_engine_that_does_what_the_oracle_does_scores_what_it_scores(clip, monkeypatch):
    def lips(talker: Talker, waveform: Waveform, count: int) -> tuple[np.ndarray, np.ndarray]:
        track = oracle_track("LJ", clip.aligned(waveform)[0], count)
        return 13 * track.opening, track.rounding

    monkeypatch.setattr(evaluate, "lips_of", lips)
    result = speech_report(talker(), [clip])
    for name in ("bcr", "sel", "rnd", "r0", "lag_ms"):
        assert result["mmtalker"][name] == pytest.approx(result["oracle"][name], abs=0.01)


# The report on the corpus.


def test_every_network_is_reported_beside_the_baselines(report, unseen):
    """Blinks of its own are drawn for the first alone."""
    assert report["rows"].keys() == {"one", "one, own blinks", "other", "textalker", "static face", "mean motion"}
    assert report["clips"] == len(unseen) == 2
    assert report["masks"] == {name: len(members) for name, members in tiny_head().regions.items()}
    assert report["less_full"].keys() == report["rows"].keys()
    assert set(report["less_full"]["one"].values()) == {(0, 0)}
    assert report["rows"]["one"] != report["rows"]["one, own blinks"]
    assert len({row["lve_mm"] for row in report["rows"].values()}) == 6
    assert json.loads(json.dumps(report))["rows"] == report["rows"]


def test_subjects_are_spoken_in_their_own_style_where_there_is_more_of_them(corpus, unseen):
    """The pivot is of the clips that are not judged."""
    rows = corpus_report({"one": talker()}, corpus, unseen[:1])["rows"]
    assert rows.keys() == {"one", "one, own blinks", "one, own style", "static face", "mean motion"}
    assert rows["one, own style"] != rows["one"]
    (style,) = evaluate.own_styles(corpus, talker().networks, {unseen[0].id}).values()
    weights, contact = tracks_at(np.arange(30 * 10) / 30, unseen[1].weights, unseen[1].contact)
    frames = min(300, frame_count(len(unseen[1].samples) / 16_000, 30))
    offsets = corpus.rig(tiny_head()).offsets(weights[:frames], contact[:frames])
    assert style.motion == pytest.approx(talker().networks.encoders.motion(offsets).mean(0), abs=1e-4)


def test_the_truth_scores_nothing(corpus, unseen, monkeypatch):
    rig = corpus.rig(tiny_head())
    monkeypatch.setattr(evaluate, "offsets_of", lambda talker, clip, lids: true_offsets(rig, clip))
    rows = corpus_report({"truth": talker()}, corpus, unseen)["rows"]
    assert set(rows["truth"].values()) == {0.0}
    assert rows["static face"]["lve_mm"] > 1


def test_a_static_face_is_as_wrong_as_the_lips_move(report, corpus, unseen):
    """LVE by hand: on the subject's head, which is 1.3 times the canonical one, offsets are 1.3 times as long."""
    largest, squares = [], []
    for clip in unseen:
        moved = 1.3e3 * np.linalg.norm(true_offsets(corpus.rig(tiny_head()), clip)[:, tiny_head().rim], axis=2).max(1)
        largest.append(moved.mean())
        squares.append((moved**2).mean())
    assert report["rows"]["static face"]["lve_mm"] == pytest.approx(np.mean(largest), rel=1e-3)
    assert report["rows"]["static face"]["lve_mm2"] == pytest.approx(np.mean(squares), rel=1e-3)


def test_a_face_that_does_not_move_has_all_of_the_truths_dynamics_to_answer_for(report, corpus, unseen):
    """FDD of the static face, and of the mean motion, which is still too, is the truth's deviation over time."""
    upper = tiny_head().regions["upper_face"]
    wanted = [
        1.3e3 * np.sqrt(true_offsets(corpus.rig(tiny_head()), clip)[:, upper].var(0).sum(-1)).mean() for clip in unseen
    ]
    for name in ("static face", "mean motion"):
        assert report["rows"][name]["fdd_mm"] == pytest.approx(np.mean(wanted), rel=1e-3)


def test_the_mean_motion_is_less_wrong_than_a_static_face(report):
    """In squares: about a mean they are least."""
    assert report["rows"]["mean motion"]["lve_mm2"] < report["rows"]["static face"]["lve_mm2"]


def test_a_report_is_the_mean_over_clips(report, corpus, unseen):
    each = [corpus_report({"one": talker()}, corpus, [clip])["rows"] for clip in unseen]
    for name in each[0].keys() & report["rows"].keys():
        for figure, value in each[0][name].items():
            assert report["rows"][name][figure] == pytest.approx((value + each[1][name][figure]) / 2, rel=1e-6)


def test_a_network_is_given_the_corpus_blinks(unseen):
    """Asking with them is not asking without."""
    own = offsets_of(talker(), unseen[0], TrueLids(unseen[0]))
    awake = offsets_of(talker(), unseen[0], TrueLids(replace(unseen[0], blinks=0 * unseen[0].blinks)))
    assert np.abs(own - awake).max() > 1e-5


@pytest.mark.parametrize("samples", [16_000, 16_001, 17_599])
def test_truth_and_prediction_have_the_same_frames(samples, corpus, unseen):
    """As many as the service makes of the sound, though the tracks end with its last hundredth."""
    whole = unseen[0]
    count = samples * RATE_HZ // 16_000
    tracks = {name: getattr(whole, name)[:count] for name in ("weights", "contact", "blinks")}
    cut = replace(whole, samples=whole.samples[:samples], **tracks)
    predicted, truth = offsets_of(talker(), cut, TrueLids(cut)), true_offsets(small_rig(), cut)
    assert predicted.shape == truth.shape == (frame_count(samples / 16_000, 30), len(tiny_head().atlas.vertices), 3)


def test_the_truth_is_the_rigs_between_samples(unseen):
    """Thirty frames a second of a hundred samples: the first is a sample, the second lies a third of the way to one."""
    clip = unseen[0]
    third = [track[3] + (track[4] - track[3]) / 3 for track in (clip.weights, clip.contact)]
    wanted = [
        small_rig().offsets(clip.weights[:1], clip.contact[:1])[0],
        small_rig().offsets(*map(np.atleast_1d, (third[0][None], third[1])))[0],
    ]
    assert true_offsets(small_rig(), clip)[:2] == pytest.approx(np.stack(wanted), abs=1e-6)


def test_predicted_lips_are_sealed(unseen):
    """Where the network says contact, and not where it denies it."""
    networks = [talker(touching(logit)) for logit in (-100.0, 100.0)]
    offsets = [offsets_of(network, unseen[0], TrueLids(unseen[0])) for network in networks]
    apart, shut = (np.abs(middle_gap_mm(tiny_head(), each[:, tiny_head().rim])).mean() for each in offsets)
    assert apart > 0.1
    assert shut < 0.1 * apart


def test_true_lids_are_the_clips_blinks(unseen):
    """At samples, linearly between them, and held at the end."""
    clip = unseen[0]
    lids, count = TrueLids(clip), len(clip.blinks)
    closure = lids.closure(np.array([0, 0.07, 0.075, 100.0], np.float32))
    assert closure.dtype == np.float32
    wanted = [clip.blinks[0], clip.blinks[7], (clip.blinks[7] + clip.blinks[8]) / 2, clip.blinks[count - 1]]
    assert closure == pytest.approx(wanted, abs=1e-5)


@pytest.mark.parametrize("every", [97, 10])
def test_mean_offsets_are_the_mean_of_the_training_subjects(corpus, every):
    """Of every so-manieth sample of all clips end to end, sealed where they are."""
    rig = corpus.rig(tiny_head())
    offsets = np.concatenate([rig.offsets(clip.weights, clip.contact) for clip in corpus.clips(held_out=False)])
    assert mean_offsets(corpus, tiny_head(), every) == pytest.approx(offsets[::every].mean(0), abs=1e-7)
