"""The command line that makes and judges checkpoints: every command says what it does, and does it to what it is given.

What a command hands on is watched where making it would take minutes; the rest runs on the tiny head.
"""

import json
import re
import shutil
import subprocess
import sys
from dataclasses import asdict, replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from test_evaluate import PHONES, write_weights
from test_face import small_rig
from test_mmtalker_training import write_corpus
from test_spoken import CLIP, libri, listed
from tiny import CONFIG, TORCH, tiny_encoder, tiny_head, tiny_network, tiny_pivot, tiny_speech
from tiny_textalker import JOINT, MOTION, WRINKLE, tiny_autoencoder, tiny_denoiser

from models.backend import autoencoders_id
from models.checkpoint import (
    Header,
    file_sha256,
    pin,
    pinned_file,
    read_header,
    read_manifest,
    read_tensors,
    save_checkpoint,
)
from models.core import StylePivot
from models.features import read_compact
from models.mmtalker.network import SIZES, MMTalkerConfig, load_mmtalker
from models.pivots import save_styles
from models.textalker import autoencoder as maps
from models.textalker import denoiser
from models.textalker import upsampler as enlarging
from training import autoencoder, evaluate, latents, mmtalker, speech_encoder, styles, textalker, upsampler
from training.__main__ import ABLATIONS, TEXTALKER_ABLATIONS, main
from training.datasets.corpus import Corpus
from training.lipsync import bootstrap

COMMANDS = [
    "head",
    "shapes",
    "corpus",
    "speech-encoder",
    "mmtalker",
    "autoencoder",
    "latents",
    "textalker",
    "styles",
    "wrinkles",
]
COMMANDS += ["upsampler", "export", "evaluate", "evaluate speech", "evaluate corpus", "evaluate upsampler"]
COMMANDS += ["evaluate registration"]
PROGRAM = "import sys; from training.__main__ import main\ntry: main(['mmtalker', '--help'])\nexcept SystemExit: pass\n"


def run(*arguments: object) -> None:
    main([str(argument) for argument in arguments])


def refused(match: str) -> pytest.RaisesExc[SystemExit]:
    """The command ends with a message of its own."""
    return pytest.raises(SystemExit, match=f"^training: .*{match}")


def watch(monkeypatch: pytest.MonkeyPatch, module: Any, name: str) -> list[tuple[Any, ...]]:
    """The arguments of each call of a function that is not run, those that are named at the end."""
    calls: list[tuple[Any, ...]] = []
    monkeypatch.setattr(module, name, lambda *arguments, **named: calls.append((*arguments, *named.values())))
    return calls


@pytest.fixture(scope="module")
def corpus(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_corpus(tmp_path_factory.mktemp("corpus") / "built").folder


@pytest.fixture
def weights(tmp_path: Path) -> Path:
    return write_textalker(write_weights(tmp_path / "weights"))


@pytest.fixture
def speech(tmp_path: Path) -> Path:
    """Two clips with phones, one of which has a person's transcript, the other a machine's."""
    record = {"file": f"speech/{CLIP.name}", "phones": PHONES, "alignment_score": -12.0}
    told, heard = {"id": "told", "transcript": "in being"}, {"id": "heard", "machine_transcript": "him being"}
    folder = listed(tmp_path / "speech", record | told, record | heard)
    shutil.copy(CLIP, folder / CLIP.name)
    return folder


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    """Torch instead of ONNX, and few rounds of the bootstrap."""
    monkeypatch.setattr(evaluate, "open_runtime", lambda device, cache: TORCH)
    monkeypatch.setattr("models.runtime.open_runtime", lambda device, cache: TORCH)
    monkeypatch.setattr(evaluate, "bootstrap", partial(bootstrap, rounds=3))


def write_run(folder: Path, seed: int = 1) -> Path:
    """A folder as a run of MMTalker leaves it."""
    network = tiny_network(seed=seed)
    header = Header("mmtalker", asdict(network.config), data="noise")
    save_checkpoint(folder / "averaged.safetensors", network.state_dict(), header)
    (folder / "metrics.jsonl").write_text('{"step": 1, "rec": 3.5}\n{"step": 2, "rec": 2.5}\n')
    return folder


def write_textalker(folder: Path) -> Path:
    """The tiny TexTalker in a folder of weights, and one style."""
    networks = {f"textalker-{config.modality}": tiny_autoencoder(config) for config in (MOTION, WRINKLE)}
    for name, network in {**networks, "textalker": tiny_denoiser()}.items():
        kind = "textalker-diffusion" if name == "textalker" else "autoencoder"
        save_checkpoint(folder / f"{name}.safetensors", network.state_dict(), Header(kind, asdict(network.config)))
        pin(folder, name, folder / f"{name}.safetensors")
    neutral = StylePivot("neutral", "", "", {}, tiny_pivot(), tiny_pivot()[: WRINKLE.latents])
    save_styles(folder / "styles.safetensors", [neutral], spaces(folder))
    pin(folder, "styles", folder / "styles.safetensors")
    return folder


def spaces(weights: Path) -> str:
    """What names the tiny auto-encoders' latents."""
    return autoencoders_id({part: digest(weights, part) for part in ("textalker-motion", "textalker-wrinkle")})


def digest(weights: Path, name: str) -> str:
    """sha256 of a checkpoint, as the manifest pins it."""
    return str(json.loads((weights / "manifest.json").read_text())[name]["sha256"])


def read_by(weights: Path) -> dict[str, str]:
    """What MMTalker's config says of the other networks that it reads."""
    return {"encoder_sha256": digest(weights, "speech"), "autoencoder_sha256": digest(weights, "textalker-motion")}


# What there is.


@pytest.mark.parametrize("command", ["", *COMMANDS])
def test_every_command_has_help(command, capsys):
    with pytest.raises(SystemExit) as end:
        run(*command.split(), "--help")
    assert end.value.code == 0
    assert capsys.readouterr().out.startswith(f"usage: python -m training {command}".rstrip())


@pytest.mark.parametrize(
    "arguments",
    [
        [],
        ["evaluate"],
        ["unknown"],
        ["export"],
        ["export", "head", "run"],
        ["mmtalker", "--ablation", "without-lips"],
        ["autoencoder"],
        ["autoencoder", "sound"],
        ["textalker", "--ablation", "without-ste"],
        ["upsampler", "--loss", "sharp"],
    ],
    ids=" ".join,
)
def test_what_is_no_command_is_refused_with_what_there_is(arguments, capsys):
    with pytest.raises(SystemExit) as end:
        run(*arguments)
    assert end.value.code == 2
    assert "error: " in capsys.readouterr().err


def test_help_comes_before_anything_heavy_is_imported():
    program = PROGRAM + "print([name for name in ('torch', 'numpy', 'scipy', 'anny') if name in sys.modules])"
    result = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert "--ablation" in result.stdout
    assert result.stdout.endswith("[]\n")


# What is trained.


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("ablation", ABLATIONS)
def test_an_ablation_sets_the_networks_config(ablation, size, corpus, weights, tmp_path, monkeypatch):
    """One component off, and all else as the size says."""
    calls = watch(monkeypatch, mmtalker, "train")
    arguments = ("--corpus", corpus, "--weights", weights, "--out", tmp_path / "run", "--steps", 7)
    run("mmtalker", *arguments, "--size", size, "--ablation", ablation)
    ((given, encoders, encoder, folder, steps, config),) = calls
    assert config == replace(SIZES[size], **read_by(weights), **ABLATIONS[ablation])
    switched_off = {name for name in ("ste", "rgcn", "dcam") if not getattr(config, name)}
    assert switched_off == ({ablation.removeprefix("without-")} - {"full"})
    assert (given, folder, steps) == (Corpus(corpus), tmp_path / "run", 7)
    assert encoders.head.atlas.fingerprint == tiny_head().atlas.fingerprint
    assert not encoder.training


def test_mmtalker_trains_at_a_whole_by_default(corpus, weights, monkeypatch):
    calls = watch(monkeypatch, mmtalker, "train")
    run("mmtalker", "--corpus", corpus, "--weights", weights)
    config = MMTalkerConfig(**read_by(weights))
    assert calls[0][3:] == (Path("build/mmtalker"), 10000, config)


def test_mmtalker_may_hear_with_another_encoder(corpus, weights, monkeypatch):
    """Which the network's config names, so that it is opened with it; the compact one need not be there."""
    (weights / "speech.safetensors").unlink()
    asked: list[str] = []
    monkeypatch.setattr("models.features.load_transformer", lambda name, runtime: asked.append(name) or tiny_speech())
    calls = watch(monkeypatch, mmtalker, "train")
    run("mmtalker", "--corpus", corpus, "--weights", weights, "--encoder", "somebody/hubert")
    ((_, _, encoder, _, _, config),) = calls
    assert asked == ["somebody/hubert"]
    assert encoder is tiny_speech()
    assert config == MMTalkerConfig(encoder="somebody/hubert", **read_by(weights) | {"encoder_sha256": ""})


def test_the_recipes_run_from_the_command_line(corpus, weights, tmp_path, monkeypatch):
    """A step of MMTalker, exported; the encoder that it hears with is the weights folder's."""
    monkeypatch.setattr("models.mmtalker.network.SIZES", {"compact": CONFIG})
    run("mmtalker", "--corpus", corpus, "--weights", weights, "--out", tmp_path / "run", "--steps", 1)
    run("export", "mmtalker", tmp_path / "run", "--weights", weights)
    path, _ = pinned_file(weights, "mmtalker")
    config = load_mmtalker(path, tiny_head().atlas).config
    assert config == replace(CONFIG, pivot=MOTION.latents, atlas=tiny_head().atlas.fingerprint, **read_by(weights))


@pytest.mark.parametrize("size", maps.SIZES)
@pytest.mark.parametrize("modality", maps.MODALITIES)
def test_an_autoencoder_is_trained_of_what_is_asked_for(modality, size, corpus, weights, tmp_path, monkeypatch):
    calls = watch(monkeypatch, autoencoder, "train")
    arguments = ("--corpus", corpus, "--weights", weights, "--out", tmp_path, "--steps", 7, "--vgg", tmp_path / "vgg")
    run("autoencoder", modality, *arguments, "--size", size)
    ((given, head, folder, steps, config, vgg, skins),) = calls
    assert (given, folder, steps, vgg) == (Corpus(corpus), tmp_path, 7, tmp_path / "vgg")
    assert config == maps.SIZES[size][modality]
    assert skins == styles.shipped_skins()
    assert head.fingerprint == tiny_head().fingerprint
    run("autoencoder", modality, "--corpus", corpus, "--weights", weights)
    assert calls[1][2] == Path(f"build/autoencoder_{modality}")
    assert calls[1][4:] == (maps.SIZES["compact"][modality], None, skins)


def test_the_corpus_is_encoded_by_the_weights_autoencoders(corpus, weights, tmp_path, monkeypatch):
    calls = watch(monkeypatch, latents, "encode_corpus")
    run("latents", "--corpus", corpus, "--weights", weights, "--minutes", 3, "--out", tmp_path / "latents")
    ((given, rig, encoders, *rest),) = calls
    assert (given, *rest) == (Corpus(corpus), 3.0, tmp_path / "latents", spaces(weights))
    assert rig.head.fingerprint == encoders.head.fingerprint
    assert encoders.motion_size == MOTION.size


def test_the_corpus_is_encoded_by_a_joint_autoencoder(corpus, weights, tmp_path, monkeypatch):
    """One of a run, with its critic."""
    calls = watch(monkeypatch, latents, "encode_corpus")
    trainee = autoencoder.Trainee(replace(JOINT, atlas=tiny_head().atlas.fingerprint))
    header = Header("autoencoder", asdict(trainee.autoencoder.config))
    save_checkpoint(path := tmp_path / "averaged.safetensors", trainee.state_dict(), header)
    run("latents", "--corpus", corpus, "--weights", weights, "--joint", path, "--out", tmp_path / "latents")
    ((_, _, encoders, _, folder, name),) = calls
    assert (encoders.parts, folder, name) == (("joint",), tmp_path / "latents", file_sha256(path))


@pytest.mark.parametrize("size", enlarging.SIZES)
def test_an_upsampler_learns_from_maps_that_the_weights_auto_encoder_blurs(
    size, corpus, weights, tmp_path, monkeypatch
):
    """If it is one of maps of that size; the tiny one fits `compact` here."""
    monkeypatch.setitem(enlarging.SIZES, "compact", replace(enlarging.SIZES["compact"], size=WRINKLE.size))
    calls = watch(monkeypatch, upsampler, "train")
    arguments = ("--corpus", corpus, "--weights", weights, "--out", tmp_path, "--steps", 7, "--size", size)
    run("upsampler", *arguments, "--loss", "adversarial", "--start", tmp_path / "a")
    ((given, head, folder, steps, config, loss, start, blur, skins, vgg),) = calls
    assert (given, folder, steps, loss, start, vgg) == (
        Corpus(corpus),
        tmp_path,
        7,
        "adversarial",
        tmp_path / "a",
        None,
    )
    assert config == enlarging.SIZES[size]
    assert (blur is None) == (size == "paper")
    assert skins == styles.shipped_skins()
    assert head.fingerprint == tiny_head().fingerprint


@pytest.mark.parametrize("size", denoiser.SIZES)
@pytest.mark.parametrize("ablation", TEXTALKER_ABLATIONS)
def test_an_ablation_sets_the_diffusions_config(ablation, size, corpus, weights, tmp_path, monkeypatch):
    """One modality alone, or latents that have no pivot taken off."""
    (tmp_path / "latents.json").write_text("{}")
    calls = watch(monkeypatch, textalker, "train")
    arguments = ("--corpus", corpus, "--weights", weights, "--latents", tmp_path, "--out", tmp_path, "--steps", 7)
    run("textalker", *arguments, "--size", size, "--ablation", ablation)
    ((given, head, own, encoder, folder, steps, config, pivoted),) = calls
    assert (given, own, folder, steps) == (Corpus(corpus), latents.Latents(tmp_path), tmp_path, 7)
    modalities = {"without-wrinkles": "motion", "without-motion": "wrinkle"}.get(ablation, "both")
    assert config == replace(denoiser.SIZES[size], encoder_sha256=digest(weights, "speech"), modalities=modalities)
    assert pivoted == (ablation != "without-pivot")
    assert head.fingerprint == tiny_head().fingerprint
    assert not encoder.training


def test_styles_are_made_and_written_into_the_weights(corpus, weights, monkeypatch, capsys):
    made, written = (watch(monkeypatch, styles, name) for name in ("make_styles", "write_styles"))
    run("styles", "--corpus", corpus, "--weights", weights)
    ((given, rig, encoders),) = made
    assert given == Corpus(corpus)
    assert rig.head is encoders.head
    assert written == [(weights, None, spaces(weights))]
    assert capsys.readouterr().out.startswith("wrote ")


def test_a_contact_sheet_is_drawn_of_a_skin_of_that_age(tmp_path, monkeypatch, capsys):
    pytest.importorskip("anny")
    from training import head
    from training.corpus import contact_sheet
    from training.corpus.wrinkles import draw_wrinkle_style

    monkeypatch.setattr(head, "canonical_rig", small_rig)
    calls = watch(monkeypatch, contact_sheet, "contact_sheet")
    run("wrinkles", "--age", 0.6, "--seed", 3, "--out", tmp_path / "sheets" / "one.png")
    ((own, rig, style, path),) = calls
    assert (own, rig) == (tiny_head(), small_rig())
    assert style == draw_wrinkle_style(np.random.default_rng(3), 0.6)
    assert path == tmp_path / "sheets" / "one.png"
    assert path.parent.is_dir()
    assert capsys.readouterr().out == f"wrote {path}\n"


@pytest.mark.parametrize("dev", [True, False])
def test_the_speech_encoder_is_scored_on_what_is_given(dev, corpus, speech, tmp_path, monkeypatch):
    calls = watch(monkeypatch, speech_encoder, "train")
    given = ("--dev", speech) if dev else ()
    run("speech-encoder", "--corpus", corpus, "--out", tmp_path / "run", "--steps", 5, *given)
    ((own, folder, steps, clips),) = calls
    assert (own, folder, steps) == (Corpus(corpus), tmp_path / "run", 5)
    assert [clip.id for clip in clips] == (["told", "heard"] if dev else [])


def test_a_corpus_is_built_of_what_is_given(tmp_path, monkeypatch):
    pytest.importorskip("parselmouth")
    from training import head
    from training.corpus import build

    monkeypatch.setattr(head, "canonical_rig", lambda: "rig")
    calls = watch(monkeypatch, build, "build_corpus")
    run("corpus", "--out", tmp_path, "--minutes", 2, "--seed", 3, "--speech", "one", "--speech", "two")
    assert calls == [(build.CorpusConfig(2.0, ("one", "two"), 3), "rig", head.identity_vertices, tmp_path)]


def test_a_head_is_written_where_it_is_asked_for(tmp_path, monkeypatch, capsys):
    from training import head

    monkeypatch.setattr(head, "write_head", lambda folder: folder / "head.safetensors")
    run("head", "--out", tmp_path)
    assert capsys.readouterr().out == f"wrote {tmp_path}/head.safetensors\n"


# What is exported.


def test_an_export_is_a_runs_average_at_half_precision_and_pinned(weights, tmp_path, capsys):
    run_folder = write_run(tmp_path / "run")
    run("export", "mmtalker", run_folder, "--weights", weights)
    path, digest = pinned_file(weights, "mmtalker")
    assert path == weights / "mmtalker.safetensors"
    assert digest == file_sha256(path)
    assert capsys.readouterr().out == f"wrote {path}, sha256 {digest}\n"
    assert path.stat().st_size < 0.8 * (run_folder / "averaged.safetensors").stat().st_size
    averaged, loaded = tiny_network(seed=1).state_dict(), load_mmtalker(path, tiny_head().atlas).state_dict()
    for name, tensor in averaged.items():
        rounded = tensor.half().float() if tensor.is_floating_point() else tensor
        assert torch.equal(loaded[name], rounded), name


def test_an_export_tells_how_the_run_went_and_of_which_code_it_is(weights, tmp_path):
    """The last metrics, the commit where there is one, and all else as the run told it."""
    run_folder = write_run(tmp_path / "run")
    run("export", "mmtalker", run_folder, "--weights", weights)
    header = read_header(pinned_file(weights, "mmtalker")[0])
    assert header.metrics == {"step": 2, "rec": 2.5}
    assert re.fullmatch("([0-9a-f]{12})?", header.commit)
    own = read_header(run_folder / "averaged.safetensors")
    assert replace(header, metrics=own.metrics, commit=own.commit) == own


def test_without_git_an_export_names_no_commit(weights, tmp_path, monkeypatch):
    monkeypatch.setenv("PATH", str(tmp_path))
    run("export", "mmtalker", write_run(tmp_path / "run"), "--weights", weights)
    assert read_header(pinned_file(weights, "mmtalker")[0]).commit == ""


def test_an_export_leaves_the_other_weights_alone(weights, tmp_path):
    before = read_manifest(weights)
    run("export", "mmtalker", write_run(tmp_path / "run"), "--weights", weights)
    after = read_manifest(weights)
    assert after.keys() == before.keys()
    assert {name for name in after if after[name] != before[name]} == {"mmtalker"}


def test_a_speech_encoder_is_exported_into_a_new_folder(tmp_path):
    """Which then holds it alone."""
    encoder = tiny_encoder()
    header = Header("compact-encoder", asdict(encoder.config))
    save_checkpoint(tmp_path / "run" / "averaged.safetensors", encoder.state_dict(), header)
    run("export", "speech", tmp_path / "run", "--weights", tmp_path / "new")
    assert [*read_manifest(tmp_path / "new")] == ["speech"]
    loaded = read_compact(pinned_file(tmp_path / "new", "speech")[0])
    assert loaded.config == encoder.config
    assert all(torch.equal(own, encoder.state_dict()[name].half().float()) for name, own in loaded.state_dict().items())


def test_an_autoencoder_is_exported_without_its_critic(weights, tmp_path):
    """Which has no further use."""
    trainee = autoencoder.Trainee(replace(MOTION, atlas=tiny_head().atlas.fingerprint))
    header = Header("autoencoder", asdict(trainee.autoencoder.config))
    save_checkpoint(tmp_path / "run" / "averaged.safetensors", trainee.state_dict(), header)
    run("export", "textalker-motion", tmp_path / "run", "--weights", weights)
    path, _ = pinned_file(weights, "textalker-motion")
    loaded = maps.load_autoencoder(path, "motion", tiny_head().atlas.fingerprint)
    assert read_tensors(path).keys() == trainee.autoencoder.state_dict().keys()
    assert torch.equal(loaded.codebook.entries, trainee.autoencoder.codebook.entries.half().float())


def test_a_run_of_something_else_is_not_exported(weights, tmp_path):
    """And the weights that were there stay."""
    before = read_tensors(weights / "speech.safetensors")
    with refused("is a mmtalker; wanted a compact-encoder"):
        run("export", "speech", write_run(tmp_path / "run"), "--weights", weights)
    assert read_tensors(weights / "speech.safetensors").keys() == before.keys()


# What is judged.


def test_a_report_on_speech_is_printed_and_written(weights, speech, tmp_path, capsys):
    out = tmp_path / "reports" / "speech.json"
    run("evaluate", "speech", speech, "--weights", weights, "--noise-db", 5, "--out", out)
    report = json.loads(out.read_text())
    assert report == json.loads(capsys.readouterr().out)
    assert {"mmtalker", "oracle", "loudness"} < report.keys()
    assert (report["clips"], report["speakers"], report["noise_db"]) == (2, 1, 5.0)


def test_a_report_is_printed_where_no_file_is_asked_for(weights, speech, tmp_path, capsys):
    there = sorted(tmp_path.rglob("*"))
    run("evaluate", "speech", speech, "--weights", weights)
    assert json.loads(capsys.readouterr().out)["noise_db"] is None
    assert sorted(tmp_path.rglob("*")) == there


@pytest.mark.parametrize(
    ("labels", "wanted"),
    [
        ("listed", [("told", True, "in being"), ("heard", True, "him being")]),
        ("transcript", [("told", False, "in being")]),
        ("recognised", [("told", False, None), ("heard", False, None)]),
    ],
)
def test_labels_are_as_listed_or_aligned_anew(labels, wanted, weights, speech, monkeypatch):
    """To what a person wrote, which not every clip has, or to what the recogniser hears."""
    judged: list[Any] = []
    monkeypatch.setattr(evaluate, "speech_report", lambda talker, clips, noise_db: judged.extend(clips) or {})
    run("evaluate", "speech", speech, "--weights", weights, "--labels", labels)
    assert [(clip.id, clip.phones is not None, clip.transcript) for clip in judged] == wanted


def test_speech_that_nobody_transcribed_is_refused_as_such(weights, tmp_path):
    folder = libri(tmp_path / "untold", {}, "84-12-0000")
    with refused("no clip of .* has a transcript"):
        run("evaluate", "speech", folder, "--weights", weights, "--labels", "transcript")


def test_a_report_on_the_corpus_is_printed_and_written(weights, corpus, tmp_path, capsys):
    out = tmp_path / "reports" / "corpus.json"
    run("evaluate", "corpus", corpus, "--weights", weights, "--out", out)
    report = json.loads(out.read_text())
    assert report == json.loads(capsys.readouterr().out)
    assert report["rows"].keys() == {"shipped", "shipped, own blinks", "static face", "mean motion"}
    assert report["clips"] == 2


def test_only_so_many_clips_are_judged_as_are_asked_for(weights, corpus, capsys):
    run("evaluate", "corpus", corpus, "--weights", weights, "--clips", 1)
    assert json.loads(capsys.readouterr().out)["clips"] == 1


def test_runs_are_compared_with_the_shipped_network_by_their_names(weights, corpus, tmp_path, capsys):
    """Each with its own checkpoint; `full` is made to be the shipped one."""
    for seed, name in enumerate(ABLATIONS):
        write_run(tmp_path / "runs" / name, seed)
    run("evaluate", "corpus", corpus, "--weights", weights, "--runs", tmp_path / "runs", "--clips", 1)
    rows = json.loads(capsys.readouterr().out)["rows"]
    others = {"shipped, own blinks", "shipped, own style", "static face", "mean motion"}
    assert rows.keys() == {"shipped", *ABLATIONS} | others
    assert len({rows[name]["lve_mm"] for name in ABLATIONS}) == len(ABLATIONS)
    assert rows["shipped"] == rows["full"]


# What is refused.


def test_a_refusal_is_a_message_and_no_traceback(tmp_path):
    """On stderr, with a status that says so."""
    command = [sys.executable, "-m", "training", "speech-encoder", "--corpus", tmp_path / "nowhere"]
    result = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True)
    assert result.returncode == 1
    assert result.stdout == ""
    assert result.stderr.startswith("training: no corpus in ")
    assert "Traceback" not in result.stderr


@pytest.mark.parametrize(
    "command",
    [
        "mmtalker --out {out} --weights {weights} --corpus",
        "speech-encoder --out {out} --corpus",
        "autoencoder motion --out {out} --weights {weights} --corpus",
        "latents --out {out} --weights {weights} --corpus",
        "textalker --out {out} --weights {weights} --corpus",
        "evaluate corpus --weights {weights}",
    ],
    ids=["mmtalker", "speech-encoder", "autoencoder", "latents", "textalker", "evaluate corpus"],
)
def test_a_folder_without_a_corpus_is_refused_before_anything_is_written(command, weights, tmp_path):
    out = tmp_path / "out"
    with refused(r"no corpus in .*; make one: python -m training corpus"):
        run(*command.format(out=out, weights=weights).split(), tmp_path / "nowhere")
    assert not out.exists()


@pytest.mark.parametrize(
    "command",
    [
        "mmtalker --corpus {corpus} --out {out}",
        "autoencoder motion --corpus {corpus} --out {out}",
        "latents --corpus {corpus} --out {out}",
        "evaluate corpus {corpus} --out {out}",
        "evaluate speech {speech} --out {out}",
    ],
    ids=["mmtalker", "autoencoder", "latents", "evaluate corpus", "evaluate speech"],
)
def test_a_folder_without_weights_is_refused_before_anything_is_written(command, corpus, speech, tmp_path):
    out = tmp_path / "out"
    with refused(r"no .*manifest\.json"):
        run(*command.format(corpus=corpus, speech=speech, out=out).split(), "--weights", tmp_path / "nowhere")
    assert not out.exists()


@pytest.mark.parametrize("missing", ["head", "speech", "textalker-motion", "textalker-wrinkle"])
def test_weights_without_what_mmtalker_reads_are_refused_by_its_name(missing, corpus, weights, tmp_path):
    manifest = json.loads((weights / "manifest.json").read_text())
    (weights / "manifest.json").write_text(json.dumps({name: manifest[name] for name in manifest if name != missing}))
    with refused(f"has no '{missing}'"):
        run("mmtalker", "--corpus", corpus, "--weights", weights, "--out", tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_a_folder_without_latents_is_refused_before_anything_is_written(corpus, weights, tmp_path):
    arguments = ("--corpus", corpus, "--weights", weights, "--out", tmp_path / "out")
    with refused("no latents in .*; make them: python -m training latents"):
        run("textalker", *arguments, "--latents", tmp_path / "nowhere")
    assert not (tmp_path / "out").exists()


def test_a_folder_without_speech_is_refused(weights, tmp_path):
    with refused("no speech in"):
        run("evaluate", "speech", tmp_path / "nowhere", "--weights", weights)


def test_a_run_that_is_not_there_is_refused_and_nothing_exported(weights, tmp_path):
    before = {path: path.read_bytes() for path in weights.iterdir()}
    with refused("cannot be read"):
        run("export", "mmtalker", tmp_path / "nowhere", "--weights", weights)
    assert {path: path.read_bytes() for path in weights.iterdir()} == before


@pytest.mark.parametrize(
    "option",
    [
        "evaluate corpus x --clips",
        "mmtalker --steps",
        "speech-encoder --steps",
        "autoencoder motion --steps",
        "textalker --steps",
    ],
)
def test_less_than_one_is_refused(option, capsys):
    with pytest.raises(SystemExit) as end:
        run(*option.split(), 0)
    assert end.value.code == 2
    assert "got 0; wanted 1 or more" in capsys.readouterr().err


def test_a_corpus_whose_held_out_subjects_are_silent_is_refused(weights, corpus, monkeypatch):
    monkeypatch.setattr(Corpus, "clips", lambda self, held_out: iter(()))
    with refused("no held-out subject of .* says anything"):
        run("evaluate", "corpus", corpus, "--weights", weights)


def test_a_comparison_that_lacks_a_run_is_refused(weights, corpus, tmp_path):
    write_run(tmp_path / "runs" / "full")
    with refused("without-ste"):
        run("evaluate", "corpus", corpus, "--weights", weights, "--runs", tmp_path / "runs")
