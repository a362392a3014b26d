"""The corpus on disk: the same seed gives the same bytes, and what was written is read.

Without synthesizers it is built of the one recorded clip; `build_tiny` is also run in a process of its own.
"""

import ctypes.util
import shutil
import subprocess
import sys
from dataclasses import replace
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
from test_face import small_rig
from test_phones import tiled
from test_spoken import CLIP, libri, listed
from tiny import tiny_head

from models.core import SAMPLE_RATE_HZ, Waveform
from models.errors import MalformedInput
from training.corpus.coarticulation import RATE_HZ
from training.corpus.expressions import Habit
from training.corpus.face import ACTIONS
from training.corpus.subjects import draw_subjects
from training.datasets.corpus import Corpus

pytest.importorskip("parselmouth")

from training.corpus.build import CorpusConfig, Speech, animate, build_corpus, cast, loudness_curve

SYNTHESIZERS = all((ctypes.util.find_library("espeak-ng"), ctypes.util.find_library("flite"), shutil.which("festival")))
RECORD = {
    "file": f"speech/{CLIP.name}",
    "id": "recorded",
    "transcript": "in being",
    "phones": [["ih", 0.0, 0.08], ["n", 0.08, 0.14], ["b", 0.14, 0.18], ["iy", 0.18, 0.31], ["ih", 0.31, 0.35]],
    "alignment_score": -12.0,
    "licence": "public domain",
}


def shape(phenotypes, changes) -> np.ndarray:
    """A subject's vertices: the tiny head's, larger or smaller."""
    return tiny_head().atlas.vertices * (1 + 0.1 * phenotypes["age"])


def speech_folder(folder: Path, *records: dict) -> Path:
    folder = listed(folder / "speech", *records)
    shutil.copy(CLIP, folder / CLIP.name)
    return folder


def build_tiny(folder: Path, speech: Path, seconds: float) -> None:
    build_corpus(CorpusConfig(seconds / 60, (str(speech),), seed=2), small_rig(), shape, folder)


def contents(folder: Path) -> dict[str, bytes]:
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in sorted(folder.rglob("*.*"))}


@pytest.fixture(scope="module")
def corpus(tmp_path_factory) -> Corpus:
    """The recorded clip and, where there are synthesizers, 5 s of them."""
    folder = tmp_path_factory.mktemp("corpus")
    build_tiny(folder / "built", speech_folder(folder, RECORD), 5.0 if SYNTHESIZERS else 0.0)
    return Corpus(folder / "built")


def everything(corpus: Corpus) -> list:
    return [*corpus.clips(held_out=False), *corpus.clips(held_out=True)]


@pytest.mark.skipif(not SYNTHESIZERS, reason="a synthesizer is not installed (Debian: espeak-ng, flite, festival)")
def test_the_same_seed_gives_the_same_bytes_in_another_process(corpus, tmp_path):
    """Both fresh: espeak-ng's oscillator goes on where the last sentence of a process left it."""
    for name in ("one", "other"):
        arguments = f"Path({str(tmp_path / name)!r}), Path({str(corpus.folder.parent / 'speech')!r}), 5.0"
        program = f"from pathlib import Path; from test_corpus import build_tiny; build_tiny({arguments})"
        subprocess.run([sys.executable, "-c", program], cwd=Path(__file__).parent, check=True, capture_output=True)
    assert contents(tmp_path / "one") == contents(tmp_path / "other")
    assert len(contents(tmp_path / "one")) > 4


def test_a_corpus_is_built_over_an_older_one(tmp_path):
    speech = speech_folder(tmp_path, RECORD)
    build_tiny(tmp_path / "built", speech, 0.0)
    first = contents(tmp_path / "built")
    (tmp_path / "built" / "clips" / "recorded.npz").write_bytes(b"cut off")
    build_tiny(tmp_path / "built", speech, 0.0)
    assert contents(tmp_path / "built") == first


def test_every_clip_is_read(corpus):
    clips = everything(corpus)
    assert sorted(clip.id for clip in clips) == sorted(record["id"] for record in corpus.description["clips"])
    assert not SYNTHESIZERS or len(clips) > 1
    for clip in clips:
        count = int(len(clip.samples) / SAMPLE_RATE_HZ * RATE_HZ)
        assert clip.weights.shape == (count, len(ACTIONS))
        assert clip.contact.shape == clip.blinks.shape == (count,)
        assert {a.dtype for a in (clip.samples, clip.weights, clip.contact, clip.blinks)} == {np.dtype(np.float32)}
        assert 0.1 < np.abs(clip.samples).max() <= 1
        assert all(np.isfinite(a).all() for a in (clip.weights, clip.contact))
        assert all(0 <= a.min() <= a.max() <= 1 for a in (clip.contact, clip.blinks))
        assert all(before.end_s == after.start_s for before, after in pairwise(clip.phones))
        assert clip.phones[-1].end_s == pytest.approx(len(clip.samples) / SAMPLE_RATE_HZ, abs=2e-4)


def test_a_recorded_clip_is_what_its_list_says(corpus):
    (clip,) = (clip for clip in everything(corpus) if clip.recorded)
    (record,) = (record for record in corpus.description["clips"] if record["id"] == "recorded")
    assert [phone.name for phone in clip.phones] == [name for name, *_ in RECORD["phones"]]
    assert (record["origin"], record["text"]) == ("recorded: public domain", "in being")
    assert record["subject"] == clip.subject
    assert record["seconds"] == pytest.approx(0.358, abs=0.001), "the clip ends where its phones end"


@pytest.mark.skipif(not SYNTHESIZERS, reason="a synthesizer is not installed (Debian: espeak-ng, flite, festival)")
def test_synthetic_clips_keep_their_exact_phones(corpus):
    """Beside those of the aligner; they tile the clip too."""
    for record in corpus.description["clips"]:
        with np.load(corpus.folder / "clips" / f"{record['id']}.npz") as arrays:
            names, times = arrays["exact_phone_names"], arrays["exact_phone_times"]
            if record["origin"].startswith("recorded"):
                assert len(names) == len(times) == 0
            else:
                assert len(names) == len(times) > 5
                assert np.array_equal(times[1:, 0], times[:-1, 1])
                assert (times[0, 0], times[-1, 1]) == pytest.approx((0, record["seconds"]), abs=1e-3)


def test_the_cast_and_its_heads_are_there(corpus):
    assert corpus.subjects == draw_subjects(2)
    assert corpus.shapes.keys() == {subject.id for subject in corpus.subjects}
    for subject in corpus.subjects:
        assert corpus.shapes[subject.id] == pytest.approx(shape(subject.phenotypes, subject.changes), abs=1e-6)


def test_the_rig_is_there(corpus):
    assert corpus.rig(tiny_head()).basis == pytest.approx(small_rig().basis, abs=2e-5)


def test_recorded_voices_are_trained_on_and_a_tenth_of_the_synthetic_ones_is_held_out():
    subjects = draw_subjects()
    speech = {kind: Speech("x", kind, Waveform(np.zeros(0, np.float32)), []) for kind in ("recorded: x", "flite:slt")}
    recorded = [cast(number, speech["recorded: x"], subjects) for number in range(1000)]
    synthetic = [cast(number, speech["flite:slt"], subjects) for number in range(1000)]
    assert not any(subject.held_out for subject in recorded)
    assert sum(subject.held_out for subject in synthetic) == 100
    assert {subject.id for subject in synthetic} == {subject.id for subject in subjects}


def test_a_doubtful_alignment_is_left_out(tmp_path):
    doubtful = {**RECORD, "id": "doubtful", "alignment_score": -35.1}
    build_tiny(tmp_path / "built", speech_folder(tmp_path, doubtful, RECORD), 0.0)
    assert [clip.id for clip in everything(Corpus(tmp_path / "built"))] == ["recorded"]


def test_a_clip_that_cannot_be_aligned_is_left_out(tmp_path):
    pytest.importorskip("pocketsphinx")
    folder = libri(tmp_path / "speech", {"1-1-0000": "1984", "1-1-0001": "IN BEING COMPARATIVELY MODERN"})
    build_tiny(tmp_path / "built", folder, 0.0)
    assert [clip.id for clip in everything(Corpus(tmp_path / "built"))] == ["1-1-0001"]


def test_clips_of_two_folders_do_not_overwrite_each_other(tmp_path):
    first = speech_folder(tmp_path / "a", RECORD)
    second = speech_folder(tmp_path / "b", {**RECORD, "phones": RECORD["phones"][:3]})
    build_corpus(CorpusConfig(0.0, (str(first), str(second))), small_rig(), shape, tmp_path / "built")
    assert [len(clip.phones) for clip in everything(Corpus(tmp_path / "built"))] == [5, 3]


def test_a_folder_without_speech_is_refused_before_anything_is_written(tmp_path):
    with pytest.raises(MalformedInput):
        build_tiny(tmp_path / "built", tmp_path / "nowhere", 0.0)
    assert not (tmp_path / "built").exists()


@pytest.mark.parametrize("make", [lambda folder: folder.mkdir(), lambda folder: None], ids=["empty", "missing"])
def test_a_folder_without_a_corpus_is_refused(make, tmp_path):
    make(tmp_path / "corpus")
    with pytest.raises(MalformedInput, match=r"no corpus in .*; make one: python -m training corpus"):
        Corpus(tmp_path / "corpus")


def animated(habit: Habit, seed: int) -> dict[str, np.ndarray]:
    """Six seconds by the first of the cast."""
    samples = 0.1 * np.random.default_rng(0).standard_normal(96000).astype(np.float32).clip(-1, 1)
    speech = Speech("x", "flite:slt", Waveform(samples), tiled(("sil", 1.0), ("aa", 4.0), ("m", 1.0)))
    return animate(speech, replace(draw_subjects()[0], habit=habit), small_rig(), np.random.default_rng(seed))


def moved(one: dict[str, np.ndarray], other: dict[str, np.ndarray]) -> set[str]:
    """The actions that two clips do not share."""
    return {ACTIONS[k] for k in np.flatnonzero((one["weights"] != other["weights"]).any(0))}


def test_a_face_without_a_habit_is_drawn_by_the_generator_alone():
    """The same clip, subject and seed, the same arrays; another seed moves lids and brows, and nothing of the mouth."""
    one, same, other = (animated(Habit(), seed) for seed in (1, 1, 2))
    assert all(np.array_equal(one[name], same[name]) for name in one)
    assert not np.array_equal(one["blinks"], other["blinks"])
    assert moved(one, other)
    assert all(name.startswith(("eyeBlink", "brow")) for name in moved(one, other))


def test_chance_in_a_habit_leaves_the_mouth_to_the_sound():
    """Another seed wears it otherwise; lips touch when they did, and are as far apart as they were, to float16."""
    habit = Habit({"smile": 0.6, "sadness": 0.4}, 20.0)
    one, same, other = (animated(habit, seed) for seed in (1, 1, 2))
    assert all(np.array_equal(one[name], same[name]) for name in one)
    assert {"mouthSmileLeft", "mouthFrownRight", "cheekSquintLeft"} < moved(one, other)
    assert np.array_equal(one["contact"], other["contact"])
    gaps = [clip["weights"].astype(float) @ small_rig().gaps_mm for clip in (one, other)]
    assert np.ptp(gaps[0]) > 5
    assert gaps[0] == pytest.approx(gaps[1], abs=0.05)


def test_loudness_is_in_standard_deviations_of_the_voice():
    """A voice at two levels, half of the time each, is one deviation over and under its mean; a pause is far under."""
    noise = np.random.default_rng(0).standard_normal(48000)
    levels = np.repeat([0.0, 0.02, 0.2], 16000)
    loudness = loudness_curve(Waveform((levels * noise).astype(np.float32)), 300)
    assert loudness.shape == (300,)
    assert (loudness[120:180].mean(), loudness[220:280].mean()) == pytest.approx((-1, 1), abs=0.1)
    assert loudness[20:80].max() < -3


@pytest.mark.parametrize("level", [0.0, 0.1])
def test_an_even_voice_and_silence_are_neither_loud_nor_quiet(level):
    loudness = loudness_curve(Waveform(np.full(16000, level, np.float32)), 100)
    assert loudness[20:80] == pytest.approx(np.zeros(60), abs=0.2)
    assert np.isfinite(loudness).all()
