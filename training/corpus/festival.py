"""Speech from festival, through one process that is kept: three American speakers.

Starting festival takes longer than saying a sentence, so it is started once and answers on its standard output.
"""

import atexit
import shutil
import subprocess
import tempfile
from dataclasses import dataclass
from functools import cache
from pathlib import Path

from scipy.io import wavfile

from models.core import SAMPLE_RATE_HZ
from models.errors import OutOfRange, UnknownName
from training.corpus.flite import radio_mark
from training.corpus.utterance import Mark, SynthesizerError, Utterance, check_sentence, resample, tile

PACKAGE_OF = {
    "kal_diphone": "festvox-kallpc16k",
    "ked_diphone": "festvox-kdlpc16k",
    "cmu_us_slt_arctic_hts": "festvox-us-slt-hts",
}
"""Speakers, and the Debian packages they come in."""
STRETCHABLE = ("kal_diphone", "ked_diphone")

_SCRIPT = """
(define (talker_say text path)
  (let ((utterance (eval (list 'Utterance 'Text text))))
    (utt.synth utterance)
    (utt.save.wave utterance path 'riff)
    (mapcar
      (lambda (segment)
        (format t "%s %f %s\\n" (item.name segment) (item.feat segment 'end)
          (item.feat segment "R:SylStructure.parent.stress")))
      (utt.relation.items utterance 'Segment))))
"""
_END = "end"


@dataclass(frozen=True)
class FestivalVoice:
    """One of the speakers of PACKAGE_OF; `stretch`, 0.5 to 2, lengthens every phone of those that are STRETCHABLE."""

    speaker: str = "kal_diphone"
    stretch: float = 1.0

    def __post_init__(self) -> None:
        if self.speaker not in PACKAGE_OF:
            raise UnknownName("speaker", self.speaker, PACKAGE_OF)
        if not 0.5 <= self.stretch <= 2:
            raise OutOfRange(f"stretch = {self.stretch}; wanted 0.5 to 2", field="stretch")
        if self.stretch != 1 and self.speaker not in STRETCHABLE:
            raise OutOfRange(
                f"{self.speaker} cannot be stretched; wanted stretch = 1, or a diphone voice", field="stretch"
            )

    @property
    def name(self) -> str:
        """Who speaks, for `Utterance.voice`."""
        return f"festival:{self.speaker}:{self.stretch:g}"

    def speak(self, text: str) -> Utterance:
        """Say `text`."""
        check_sentence(text)
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder) / "speech.wav"
            marks = _process().say(self, text, path)
            rate_hz, samples = wavfile.read(path)
        wave = resample(samples, rate_hz)
        return Utterance(wave, tile(marks, wave.size / SAMPLE_RATE_HZ), text, self.name)


class _Process:
    """A running festival."""

    def __init__(self) -> None:
        program = shutil.which("festival")
        if program is None:
            raise SynthesizerError.missing("festival", "festival")
        self._process = subprocess.Popen(
            [program, "--pipe"], stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True
        )
        atexit.register(self._process.communicate)
        self._speaker = ""
        self._answers(_SCRIPT)

    def say(self, voice: FestivalVoice, text: str, path: Path) -> list[Mark]:
        """Write the speech to `path`; the ends of phones."""
        if voice.speaker != self._speaker:
            self._select(voice.speaker)
        quoted = text.replace("\\", "\\\\").replace('"', '\\"')
        lines = self._answers(f"(Parameter.set 'Duration_Stretch {voice.stretch})", f'(talker_say "{quoted}" "{path}")')
        return [radio_mark(name, float(end_s), stress) for name, end_s, stress in map(str.split, lines)]

    def _select(self, speaker: str) -> None:
        self._speaker = ""
        if self._answers(f'(if (member \'{speaker} (voice.list)) (format t "yes\\n"))') != ["yes"]:
            raise SynthesizerError.missing(f"festival's voice {speaker}", PACKAGE_OF[speaker])
        self._answers(f"(voice_{speaker})")
        self._speaker = speaker

    def _answers(self, *expressions: str) -> list[str]:
        """What the expressions print. The end is printed apart from them, so it comes even where one of them fails."""
        stdin, stdout = self._process.stdin, self._process.stdout
        assert stdin is not None
        assert stdout is not None
        lines = []
        try:
            stdin.write("\n".join((*expressions, f'(format t "{_END}\\n")', "(fflush nil)\n")))
            stdin.flush()
            while (line := next(stdout).strip()) != _END:
                lines.append(line)
        except (BrokenPipeError, StopIteration) as error:
            _process.cache_clear()
            raise SynthesizerError(f"festival ended at {expressions[-1]!r}; wanted speech; leave that out") from error
        return lines


@cache
def _process() -> _Process:
    return _Process()
