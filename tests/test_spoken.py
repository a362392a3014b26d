"""Folders of recorded speech: a list beside them, or LibriSpeech's transcripts, or neither."""

import json
import shutil
from pathlib import Path

import numpy as np
import pytest

from models.core import SAMPLE_RATE_HZ
from models.errors import MalformedInput
from training.corpus.phones import Phone
from training.datasets.spoken import SpokenClip, read_spoken

CLIP = Path(__file__).parent / "data" / "LJ001-0002.flac"


def listed(folder: Path, *records: dict) -> Path:
    """A folder with the clip in it and a list beside it."""
    folder.mkdir(parents=True)
    shutil.copy(CLIP, folder / "clip.flac")
    folder.with_name(f"{folder.name}.json").write_text(json.dumps(records))
    return folder


def libri(folder: Path, transcripts: dict[str, str], *unspoken: str) -> Path:
    """LibriSpeech's layout: speaker / chapter / speaker-chapter-number.flac, and a transcript file a chapter."""
    for name in (*transcripts, *unspoken):
        place = folder.joinpath(*name.split("-")[:-1])
        place.mkdir(parents=True, exist_ok=True)
        shutil.copy(CLIP, place / f"{name}.flac")
        if name in transcripts:
            with (place / f"{'-'.join(name.split('-')[:-1])}.trans.txt").open("a") as file:
                file.write(f"{name} {transcripts[name]}\n")
    return folder


def only(folder: Path) -> SpokenClip:
    (clip,) = read_spoken(folder)
    return clip


def test_a_list_says_all_of_a_clip(tmp_path):
    record = {
        "id": "LJ-2",
        "file": "speech/clip.flac",
        "speaker": "LJ",
        "transcript": "in being",
        "machine_transcript": "him being",
        "phones": [["ih", 0.0, 0.08], ["n", 0.08, 0.2]],
        "alignment_score": -12.5,
        "licence": "public domain",
    }
    folder = listed(tmp_path / "speech", record)
    assert only(folder) == SpokenClip(
        id="LJ-2",
        path=folder / "clip.flac",
        speaker="LJ",
        transcript="in being",
        transcribed=True,
        phones=(Phone("ih", 0.0 + 0.008, 0.08 + 0.008), Phone("n", 0.08 + 0.008, 0.2 + 0.008)),
        score=-12.5,
        licence="public domain",
    )


def test_a_list_may_say_nothing_but_the_file(tmp_path):
    clip = only(listed(tmp_path / "speech", {"file": "speech/clip.flac"}))
    assert (clip.id, clip.speaker, clip.transcript, clip.phones, clip.score) == ("clip", "clip", None, None, None)
    assert clip.licence == "unknown"


def test_a_machines_transcript_is_used_and_is_not_a_persons(tmp_path):
    clip = only(listed(tmp_path / "speech", {"file": "speech/clip.flac", "machine_transcript": "him being"}))
    assert (clip.transcript, clip.transcribed) == ("him being", False)


def test_a_list_keeps_its_order(tmp_path):
    records = [{"file": "speech/clip.flac", "id": name} for name in "bca"]
    assert [clip.id for clip in read_spoken(listed(tmp_path / "speech", *records))] == [*"bca"]


def test_librispeechs_transcripts_are_found(tmp_path):
    texts = {"84-12-0001": "IN BEING", "84-12-0000": "MODERN", "9-3-0000": "COMPARATIVELY MODERN"}
    clips = list(read_spoken(libri(tmp_path, texts)))
    assert [clip.id for clip in clips] == ["84-12-0000", "84-12-0001", "9-3-0000"]
    assert {clip.id: clip.transcript for clip in clips} == texts
    assert [clip.speaker for clip in clips] == ["84", "84", "9"]
    assert all(clip.transcribed and clip.phones is None and clip.score is None for clip in clips)


def test_clips_without_a_transcript_are_read_too(tmp_path):
    clips = list(read_spoken(libri(tmp_path, {"84-12-0000": "MODERN"}, "84-12-0001", "7-1-0000")))
    assert [(clip.id, clip.transcript, clip.transcribed) for clip in clips] == [
        ("7-1-0000", None, False),
        ("84-12-0000", "MODERN", True),
        ("84-12-0001", None, False),
    ]


@pytest.mark.parametrize("make", [lambda folder: folder.mkdir(), lambda folder: None], ids=["empty", "missing"])
def test_a_folder_without_speech_is_refused(make, tmp_path):
    make(tmp_path / "speech")
    with pytest.raises(MalformedInput, match=r"wanted audio files, and speech\.json beside it or \*\.trans\.txt"):
        list(read_spoken(tmp_path / "speech"))


def test_an_empty_list_is_refused(tmp_path):
    with pytest.raises(MalformedInput, match="no speech"):
        list(read_spoken(listed(tmp_path / "speech")))


def test_a_list_with_a_phone_that_is_none_is_refused(tmp_path):
    folder = listed(tmp_path / "speech", {"file": "speech/clip.flac", "phones": [["xx", 0, 1]]})
    with pytest.raises(MalformedInput, match="xx"):
        list(read_spoken(folder))


def test_a_folder_with_a_dot_in_its_name_has_a_list_beside_it(tmp_path):
    assert only(listed(tmp_path / "speech.2", {"file": "speech.2/clip.flac", "id": "dotted"})).id == "dotted"


def test_the_working_folder_can_be_read(tmp_path, monkeypatch):
    monkeypatch.chdir(libri(tmp_path, {"84-12-0000": "MODERN"}))
    assert only(Path()).transcript == "MODERN"


def test_a_list_without_a_file_is_refused(tmp_path):
    with pytest.raises(MalformedInput):
        list(read_spoken(listed(tmp_path / "speech", {"id": "nowhere"})))


def test_a_clip_is_16_khz(tmp_path):
    waveform = only(libri(tmp_path, {"84-12-0000": "MODERN"})).waveform()
    assert waveform.rate_hz == SAMPLE_RATE_HZ
    assert waveform.duration_s == pytest.approx(1.9, abs=0.01)
    assert np.abs(waveform.samples).max() > 0.1


def test_listed_phones_need_no_aligner(tmp_path):
    record = {"file": "speech/clip.flac", "phones": [["aa", 0, 1]], "alignment_score": -7.0}
    clip = only(listed(tmp_path / "speech", record))
    assert clip.aligned(clip.waveform()) == ([Phone("aa", 0.008, 1.008)], -7.0)


@pytest.mark.parametrize("transcript", ["in being comparatively modern", None], ids=["transcript", "none"])
def test_what_is_not_listed_is_aligned(transcript, tmp_path):
    """To the transcript, or to what pocketsphinx hears."""
    pytest.importorskip("pocketsphinx")
    clip = only(listed(tmp_path / "speech", {"file": "speech/clip.flac", "transcript": transcript}))
    waveform = clip.waveform()
    phones, score = clip.aligned(waveform)
    assert (phones[0].start_s, phones[-1].end_s) == (0, waveform.duration_s)
    assert {"b", "m", "iy"} <= {phone.name for phone in phones}
    assert score > -35
