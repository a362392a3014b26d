"""Speech encoders: the shipped kind from its checkpoint, wav2vec 2.0 and HuBERT from folders made on the spot."""

import json
import sys
from dataclasses import asdict
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from tiny import SPEECH, TORCH, noise, tiny_encoder, tiny_speech
from torch import Tensor, nn

from models.checkpoint import Header, save_checkpoint
from models.core import SAMPLE_RATE_HZ
from models.errors import CheckpointError
from models.features import STRIDE, BlockEncoder, CompactSpeech, TransformerSpeech, load_compact, load_transformer
from models.runtime import Runtime

KINDS = ("wav2vec2", "hubert")
WIDTH = 16


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """A tiny random checkpoint of each kind; wav2vec 2.0's sound is normalised, HuBERT's is not."""
    transformers = pytest.importorskip("transformers", reason="the encoders extra is not installed")
    shape = {
        "hidden_size": WIDTH,
        "num_hidden_layers": 1,
        "num_attention_heads": 2,
        "intermediate_size": 16,
        "conv_dim": (8,) * 7,
        "num_conv_pos_embeddings": 4,
        "num_conv_pos_embedding_groups": 2,
    }
    made = {}
    for kind, config, network, norm in (
        ("wav2vec2", transformers.Wav2Vec2Config, transformers.Wav2Vec2Model, "layer"),
        ("hubert", transformers.HubertConfig, transformers.HubertModel, "group"),
    ):
        torch.manual_seed(0)
        folder = made[kind] = tmp_path_factory.mktemp(kind)
        network(config(**shape, feat_extract_norm=norm)).save_pretrained(folder)
        transformers.Wav2Vec2FeatureExtractor(do_normalize=kind == "wav2vec2").save_pretrained(folder)
    return made


@pytest.fixture(params=KINDS)
def encoder(request: pytest.FixtureRequest, folders: dict[str, Path]) -> TransformerSpeech:
    return load_transformer(str(folders[request.param]), TORCH)


def encode(encoder: BlockEncoder, samples: np.ndarray, feed: int | None = None) -> np.ndarray:
    """Features (n, width) of a clip fed in pieces."""
    feed = feed or len(samples)
    state, features = encoder.start(), []
    for start in range(0, len(samples), feed):
        some, state = encoder.step(state, samples[start : start + feed], last=start + feed >= len(samples))
        features.append(some)
    return torch.cat(features).numpy()


@pytest.mark.parametrize("count", [1, 320, 321, 16_000, 24_001])
def test_fifty_features_a_second_of_the_configured_width(encoder, count):
    assert encoder.width == WIDTH
    features = encode(encoder, noise(count))
    assert features.shape == (-(-count // STRIDE), WIDTH)
    assert np.isfinite(features).all()


@pytest.mark.parametrize("feed", [999, 16_000, 16_001])
def test_a_transformers_features_do_not_depend_on_how_sound_is_cut(encoder, feed):
    samples = noise(40_037)
    assert np.array_equal(encode(encoder, samples, feed), encode(encoder, samples))


def test_a_transformers_features_look_4_s_back_and_half_a_second_ahead(encoder):
    """Sound before and after that changes nothing in the block of second 5; sound within it does."""
    samples = noise(7 * SAMPLE_RATE_HZ)
    block = slice(250, 300)
    before = encode(encoder, samples)[block]
    changed = samples.copy()
    changed[: SAMPLE_RATE_HZ - 1], changed[int(6.5 * SAMPLE_RATE_HZ) :] = 0, 0
    assert np.array_equal(encode(encoder, changed)[block], before)
    changed[int(6.4 * SAMPLE_RATE_HZ) :] = 0
    assert not np.array_equal(encode(encoder, changed)[block], before)


def silence(network: nn.Module, *parts: str) -> None:
    """Zero the parameters whose names hold one of `parts`: those that spread what is heard over time."""
    with torch.no_grad():
        for name, parameter in network.named_parameters():
            if any(part in name for part in parts):
                parameter.zero_()


def heard_at(encoder: BlockEncoder, at: int) -> float:
    """The middle of the features that a click in the middle of feature `at` changes by more than half of the most."""
    samples = 0.01 * noise(4 * SAMPLE_RATE_HZ)
    clicked = samples.copy()
    clicked[at * STRIDE - 8 : at * STRIDE + 8] += 0.9
    change = np.linalg.norm(encode(encoder, clicked) - encode(encoder, samples), axis=1)
    return float(np.flatnonzero(change > change.max() / 2).mean())


class Loudness(nn.Module):
    """A network whose frames are wav2vec 2.0's, 400 samples every 320, and whose feature is their energy."""

    def forward(self, samples: Tensor) -> SimpleNamespace:
        return SimpleNamespace(last_hidden_state=samples.unfold(1, 400, 320).square().mean(2, keepdim=True))


@pytest.mark.parametrize("normalised", [True, False])
@pytest.mark.parametrize("at", [0, 75, 133])
def test_a_transformers_feature_is_centred_on_its_time(at, normalised):
    """Feature j on sample 320 j: a click there is in that feature and in no other."""
    samples = np.zeros(3 * SAMPLE_RATE_HZ, np.float32)
    samples[max(at * STRIDE - 100, 0) : at * STRIDE + 100] = 0.5
    energy = encode(TransformerSpeech(Loudness(), 1, normalised, TORCH), samples)[:, 0]
    assert energy.argmax() == at
    assert np.delete(energy, at).max() < 0.05 * energy.max()


def test_transformers_frames_are_400_samples_every_320(encoder):
    lengths = encoder._network._get_feat_extract_output_lengths(torch.tensor([399, 400, 719, 720]))
    assert lengths.tolist() == [0, 1, 1, 2]


@pytest.mark.parametrize("at", [75, 133])
def test_the_compact_encoder_hears_a_click_at_its_own_feature(at):
    network = tiny_encoder()
    silence(network, "position", ".out.", "pointwise")
    assert abs(heard_at(CompactSpeech(network, TORCH), at) - at) <= 1


def test_loudness_is_normalised_where_pre_training_did(folders):
    """wav2vec 2.0's features of half the sound are those of the sound."""
    samples = noise(SAMPLE_RATE_HZ)
    encoder = load_transformer(str(folders["wav2vec2"]), TORCH)
    assert encode(encoder, samples / 2) == pytest.approx(encode(encoder, samples), abs=1e-3)
    assert not np.allclose(encode(encoder, 0 * samples), encode(encoder, samples), atol=1e-2)


def test_a_transformer_runs_where_the_runtime_does(folders):
    encoder = load_transformer(str(folders["hubert"]), Runtime(torch.device("meta"), Path("unused"), exports=False))
    assert {parameter.device.type for parameter in encoder._network.parameters()} == {"meta"}


def test_a_folder_that_is_not_there_is_refused(tmp_path):
    pytest.importorskip("transformers", reason="the encoders extra is not installed")
    with pytest.raises(CheckpointError, match="cannot be loaded"):
        load_transformer(str(tmp_path / "nowhere"), TORCH)


def test_a_folder_that_is_empty_is_refused(tmp_path):
    pytest.importorskip("transformers", reason="the encoders extra is not installed")
    with pytest.raises(CheckpointError, match="cannot be loaded"):
        load_transformer(str(tmp_path), TORCH)


def test_a_model_of_another_kind_is_refused(tmp_path):
    pytest.importorskip("transformers", reason="the encoders extra is not installed")
    (tmp_path / "config.json").write_text(json.dumps({"model_type": "bert"}))
    with pytest.raises(CheckpointError, match="is a bert; wanted wav2vec2 or hubert"):
        load_transformer(str(tmp_path), TORCH)


def test_a_model_without_weights_is_refused(folders, tmp_path):
    (tmp_path / "config.json").write_bytes((folders["hubert"] / "config.json").read_bytes())
    with pytest.raises(CheckpointError, match="cannot be loaded"):
        load_transformer(str(tmp_path), TORCH)


def test_a_model_of_another_rate_is_refused(folders, tmp_path):
    """Twice the stride is 25 features a second."""
    transformers = pytest.importorskip("transformers", reason="the encoders extra is not installed")
    config = transformers.HubertConfig.from_pretrained(folders["hubert"])
    config.conv_stride = (10, *config.conv_stride[1:])
    transformers.HubertModel(config).save_pretrained(tmp_path)
    transformers.Wav2Vec2FeatureExtractor().save_pretrained(tmp_path)
    with pytest.raises(CheckpointError):
        load_transformer(str(tmp_path), TORCH)


def test_without_transformers_it_says_what_to_install(monkeypatch):
    monkeypatch.setitem(sys.modules, "transformers", None)
    with pytest.raises(CheckpointError, match="install the encoders extra"):
        load_transformer("facebook/wav2vec2-base", TORCH)


def test_the_compact_encoder_survives_its_checkpoint(tmp_path):
    path = tmp_path / "speech.safetensors"
    save_checkpoint(path, tiny_encoder().state_dict(), Header("speech", asdict(SPEECH)))
    samples = noise(20_000)
    assert np.array_equal(encode(load_compact(path, TORCH), samples), encode(tiny_speech(), samples))


def test_a_compact_encoder_of_another_shape_is_refused(tmp_path):
    path = tmp_path / "speech.safetensors"
    save_checkpoint(path, tiny_encoder().state_dict(), Header("speech", asdict(SPEECH) | {"width": 32}))
    with pytest.raises(CheckpointError, match="does not fit"):
        load_compact(path, TORCH)


def test_a_checkpoint_that_is_no_compact_encoder_is_refused(tmp_path):
    path = tmp_path / "head.safetensors"
    save_checkpoint(path, {"vertices": torch.zeros(3)}, Header("head", {"charts": ["skin"]}))
    with pytest.raises(CheckpointError, match="config differs"):
        load_compact(path, TORCH)
