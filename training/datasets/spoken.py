"""Folders of recorded speech: LibriSpeech's layout, or audio beside a JSON list.

A list `<folder>.json` holds one record a clip: `file` (relative to the list), and optionally `id`, `speaker`,
`transcript`, `machine_transcript`, `phones` ([[name, start_s, end_s], …] as pocketsphinx gave them, 8 ms early),
`alignment_score` and `licence`. Without a list, transcripts are read from LibriSpeech's `*.trans.txt`.
"""

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from models.audio import AudioLimits, decode_audio
from models.core import Waveform
from models.errors import MalformedInput
from training.corpus.alignment import BIAS_S, align, recognise
from training.corpus.phones import Phone

LIMITS = AudioLimits(max_bytes=1 << 30, max_seconds=3600)
SUFFIXES = (".flac", ".wav", ".mp3", ".ogg", ".opus", ".m4a")


@dataclass(frozen=True)
class SpokenClip:
    """One recording: where it is and what is known of it. `transcribed` says whether a person wrote the transcript."""

    id: str
    path: Path
    speaker: str
    transcript: str | None
    transcribed: bool
    phones: tuple[Phone, ...] | None
    score: float | None
    licence: str

    def waveform(self) -> Waveform:
        """The sound."""
        with self.path.open("rb") as file:
            return decode_audio(file, LIMITS)

    def aligned(self, waveform: Waveform) -> tuple[list[Phone], float]:
        """Phones and mean frame score: as listed, else aligned to the transcript, else to what pocketsphinx hears."""
        if self.phones is not None and self.score is not None:
            return list(self.phones), self.score
        return align(waveform, self.transcript or recognise(waveform))


def read_spoken(folder: Path) -> Iterator[SpokenClip]:
    """The clips of a folder, in order of their names. MalformedInput if there are none, or the list is not one."""
    folder = folder.resolve()
    listing = folder.with_name(f"{folder.name}.json")
    clips = list(_from_list(listing) if listing.is_file() else _from_transcripts(folder))
    if not clips:
        raise MalformedInput(f"no speech in {folder}; wanted audio files, and {listing.name} beside it or *.trans.txt")
    yield from clips


def _from_list(listing: Path) -> Iterator[SpokenClip]:
    try:
        records: list[Mapping[str, Any]] = json.loads(listing.read_text())
    except ValueError as error:
        raise MalformedInput(f"{listing} is no JSON ({error}); wanted a list of clips") from error
    for number, record in enumerate(records):
        if "file" not in record:
            raise MalformedInput(f"clip {number} of {listing} has no file; wanted its path from the list's folder")
        path = listing.parent / record["file"]
        phones = tuple(
            Phone(name, start_s + BIAS_S, end_s + BIAS_S) for name, start_s, end_s in record.get("phones", ())
        )
        yield SpokenClip(
            id=record.get("id", path.stem),
            path=path,
            speaker=record.get("speaker", path.stem),
            transcript=record.get("transcript") or record.get("machine_transcript"),
            transcribed=bool(record.get("transcript")),
            phones=phones or None,
            score=record.get("alignment_score"),
            licence=record.get("licence", "unknown"),
        )


def _from_transcripts(folder: Path) -> Iterator[SpokenClip]:
    lines = (line for file in sorted(folder.rglob("*.trans.txt")) for line in file.read_text().splitlines())
    transcripts = dict(line.split(" ", 1) for line in lines if " " in line)
    for path in sorted(path for path in folder.rglob("*") if path.suffix in SUFFIXES):
        text = transcripts.get(path.stem)
        yield SpokenClip(path.stem, path, path.stem.split("-")[0], text, text is not None, None, None, "unknown")
