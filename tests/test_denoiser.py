"""The denoiser: what each frame sees and hears, its sizes, and its checkpoint."""

from dataclasses import asdict, replace

import pytest
import torch
from torch import Tensor, nn

from models.checkpoint import Header, save_checkpoint
from models.errors import CheckpointError
from models.runtime import open_runtime
from models.textalker.denoiser import REACH, SIZES, Denoiser, DenoiserConfig, Layer, load_denoiser

CONFIG = DenoiserConfig(motion=6, wrinkle=4, features=5, width=16, layers=2, heads=2, window=12, previous=5, steps=20)
FRAMES = CONFIG.previous + CONFIG.window


def tiny(config: DenoiserConfig = CONFIG) -> Denoiser:
    torch.manual_seed(0)
    network = Denoiser(config).eval()
    nn.init.normal_(network.start)
    return network


def example(config: DenoiserConfig = CONFIG, batch: int = 2) -> list[Tensor]:
    """Noisy, previous, audio, step and valid: the last three frames are beyond the end."""
    torch.manual_seed(1)
    return [
        torch.randn(batch, config.window, config.size),
        torch.randn(batch, config.previous, config.size),
        torch.randn(batch, config.previous + config.window, config.width),
        torch.arange(1, batch + 1) * 7,
        torch.arange(config.window)[None].expand(batch, -1) < config.window - 3,
    ]


# What a frame sees.


def as_torch(layer: Layer, config: DenoiserConfig) -> nn.TransformerDecoderLayer:
    """Torch's decoder layer with the same weights. Its queries and keys of the sound are any; `hear` is its values and
    its output map, one after the other.
    """
    width = config.width
    own = nn.TransformerDecoderLayer(
        width, config.heads, config.mlp * width, 0.0, "gelu", batch_first=True, norm_first=True
    )
    own.self_attn.load_state_dict(
        {
            "in_proj_weight": layer.qkv.weight,
            "in_proj_bias": layer.qkv.bias,
            "out_proj.weight": layer.out.weight,
            "out_proj.bias": layer.out.bias,
        }
    )
    for name, part in (("norm1", layer.attend_norm), ("norm3", layer.feed_norm)):
        getattr(own, name).load_state_dict(part.state_dict())
    own.linear1.load_state_dict(layer.feed[0].state_dict())
    own.linear2.load_state_dict(layer.feed[2].state_dict())
    values, output = own.multihead_attn.in_proj_weight[2 * width :], own.multihead_attn.out_proj
    nn.init.normal_(own.multihead_attn.in_proj_bias)
    layer.hear.weight.copy_(output.weight @ values)
    layer.hear.bias.copy_(output.weight @ own.multihead_attn.in_proj_bias[2 * width :] + output.bias)
    return own.eval()


@torch.no_grad()
def test_a_layer_is_torchs_decoder_layer_under_the_alignment_mask():
    """Frame t may look at frame t's sound only. The step token, which torch cannot leave without sound, is left out of
    the comparison.
    """
    layer = tiny().layers[0]
    theirs = as_torch(layer, CONFIG)
    x, audio = torch.randn(2, 1 + FRAMES, CONFIG.width), torch.randn(2, FRAMES, CONFIG.width)
    visible = torch.arange(1 + FRAMES)[None] < torch.tensor([[1 + FRAMES], [9]])
    mine = layer(x, audio, visible[:, None, None])
    aligned = ~torch.eye(FRAMES, dtype=torch.bool)
    aligned = torch.cat([aligned[:1], aligned])
    expected = theirs(x, audio, memory_mask=aligned, tgt_key_padding_mask=~visible)
    assert torch.allclose(mine[:, 1:], expected[:, 1:], atol=1e-5)


@torch.no_grad()
def test_the_step_token_hears_nothing():
    layer, visible = tiny().layers[0], torch.ones(1, 1, 1, 1 + FRAMES, dtype=torch.bool)
    x, audio = torch.randn(1, 1 + FRAMES, CONFIG.width), torch.randn(1, FRAMES, CONFIG.width)
    loud, silent = layer(x, audio, visible), layer(x, torch.zeros_like(audio), visible)
    assert torch.equal(loud[:, 0], silent[:, 0])
    assert not torch.isclose(loud[:, 1:], silent[:, 1:]).all(-1).any()


@torch.no_grad()
def test_frames_beyond_the_end_are_seen_by_no_one():
    network, inputs = tiny(), example()
    before = network(*inputs)
    inputs[0][:, -3:] = 1e3
    inputs[2][:, -3:] = -1e3
    assert torch.equal(network(*inputs)[:, :-3], before[:, :-3])


@pytest.mark.parametrize("which", range(5), ids=["noisy", "previous", "audio", "step", "valid"])
@torch.no_grad()
def test_every_input_tells(which):
    """In every frame of the clip."""
    network, inputs = tiny(), example()
    before = network(*inputs)
    inputs[which] = ~inputs[which] if which == 4 else inputs[which] + 1
    assert not torch.isclose(network(*inputs), before).all(-1)[:, :-3].any()


@torch.no_grad()
def test_a_frame_knows_its_place():
    """Frames that are alike, with the same sound, are told apart."""
    network, inputs = tiny(), [torch.ones_like(part) for part in example()]
    result = network(*inputs)[0]
    assert not any(torch.isclose(result[k], result[k + 1]).all() for k in range(CONFIG.window - 1))


@torch.no_grad()
def test_windows_of_a_batch_do_not_see_each_other():
    network, inputs = tiny(), example()
    alone = torch.cat([network(*(part[k : k + 1] for part in inputs)) for k in range(2)])
    assert torch.allclose(network(*inputs), alone, atol=1e-6)


# What a frame hears.


def ramp_hearing():
    """A `hearing` that tells each frame which features it hears, by number from the first that is given."""
    hearing = tiny().hearing
    for part in (hearing.convolution, hearing.linear):
        nn.init.zeros_(part.weight)
        nn.init.zeros_(part.bias)
    hearing.convolution.weight.data[0, 0, REACH] = 1
    hearing.linear.weight.data[0, 0] = 1
    features = torch.zeros(1, CONFIG.heard, CONFIG.features)
    features[0, :, 0] = 100 + torch.arange(CONFIG.heard)  # so large that GELU leaves it
    audio, _ = hearing(features, torch.zeros(1, FRAMES))
    return audio[0, :, 0] - 100


def test_a_frame_hears_the_feature_of_its_moment():
    """Features are at 50 Hz, frames at 30; the window's first frame lies on feature `before`."""
    frames = torch.arange(-CONFIG.previous, CONFIG.window)
    assert torch.allclose(ramp_hearing(), CONFIG.before + frames * 5 / 3, atol=1e-4)


@torch.no_grad()
def test_a_frame_hears_no_more_than_the_features_around_it():
    """From two before to two after the two that it lies between."""
    hearing, features, lids = tiny().hearing, torch.randn(1, CONFIG.heard, CONFIG.features), torch.zeros(1, FRAMES)
    heard = hearing(features, lids)[0]
    for j in range(CONFIG.heard):
        changed = features.clone()
        changed[:, j] += 1
        frames = torch.arange(-CONFIG.previous, CONFIG.window)
        position = CONFIG.before + frames * 5 / 3
        near = (j >= position.floor() - REACH) & (j <= (position - 1e-6).ceil() + REACH)
        same = torch.isclose(hearing(changed, lids)[0], heard, atol=1e-6).all(-1)[0]
        assert torch.equal(~same, near)


@torch.no_grad()
def test_lids_are_heard_at_their_own_frame_and_tell_nothing_of_contact():
    hearing, features = tiny().hearing, torch.randn(1, CONFIG.heard, CONFIG.features)
    lids = torch.rand(1, FRAMES)
    (before, contact), (after, same) = hearing(features, torch.zeros(1, FRAMES)), hearing(features, lids)
    assert torch.allclose(after - before, lids[..., None] * hearing.lids, atol=1e-6)
    assert torch.equal(same, contact)


# Sizes.


@pytest.mark.parametrize("modalities", ["both", "motion", "wrinkle"])
def test_a_modality_that_is_left_out_is_not_made(modalities):
    config = replace(CONFIG, modalities=modalities)
    frame = torch.arange(CONFIG.motion + CONFIG.wrinkle)
    expected = {"both": frame, "motion": frame[:6], "wrinkle": frame[6:]}[modalities]
    assert torch.equal(frame[config.part], expected)
    assert tiny(config)(*example(config)).shape == (2, CONFIG.window, len(expected))


@pytest.mark.parametrize(("size", "millions"), [("compact", (3, 5)), ("paper", (90, 150))])
def test_sizes_are_what_they_are_budgeted_for(size, millions):
    """The compact one under its 5 M; the paper's 8 layers of 1024 and 8192 numbers a frame."""
    with torch.device("meta"):
        network = Denoiser(SIZES[size])
        result = network(*example(SIZES[size], batch=1))
    assert millions[0] < sum(part.numel() for part in network.parameters()) / 1e6 < millions[1]
    assert result.shape == (1, 90, 2 * {"compact": 1024, "paper": 4096}[size])


def test_a_window_of_three_seconds_hears_a_tenth_more():
    """90 frames and the 10 before them are 167 features; two more at either end are read for them."""
    config = SIZES["paper"]
    assert (config.before, config.hop, config.heard) == (19, 150, 171)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"modalities": "sound"}, "modalities 'sound'; wanted both, motion or wrinkle"),
        ({"heads": 3}, "3 heads for a width of 16; wanted an even width"),
        ({"width": 18, "heads": 18}, "18 heads for a width of 18; wanted an even width"),
        ({"window": 10}, "a window of 10 frames; wanted a multiple of 3"),
    ],
)
def test_a_config_that_cannot_be_is_refused(change, message):
    with pytest.raises(CheckpointError, match=message):
        replace(CONFIG, **change)


# Checkpoints and exported graphs.


@torch.no_grad()
def test_what_is_saved_is_what_is_loaded(tmp_path):
    network, path = tiny(), tmp_path / "denoiser.safetensors"
    network.scale.uniform_(1, 2)
    save_checkpoint(path, network.state_dict(), Header("textalker-diffusion", asdict(CONFIG)))
    loaded = load_denoiser(path)
    assert loaded.config == CONFIG
    assert torch.equal(loaded.scale, network.scale)
    assert torch.equal(loaded(*example()), network(*example()))


def test_a_checkpoint_that_does_not_fit_is_refused(tmp_path):
    path, tensors = tmp_path / "denoiser.safetensors", tiny().state_dict()
    del tensors["start"]
    save_checkpoint(path, tensors, Header("textalker-diffusion", asdict(CONFIG)))
    with pytest.raises(CheckpointError, match="missing \\['start'\\]"):
        load_denoiser(path)


@torch.no_grad()
def test_exported_graphs_give_what_torch_gives(tmp_path):
    """Both parts, by onnxruntime."""
    network, runtime = tiny(), open_runtime("cpu", tmp_path, threads=1)
    inputs = example(batch=1)
    (exported,) = runtime.compile("denoiser", network, [part.clone() for part in inputs])(*inputs)
    assert torch.allclose(exported[:, :-3], network(*inputs)[:, :-3], atol=1e-5)
    sound = [torch.randn(1, CONFIG.heard, CONFIG.features), torch.rand(1, FRAMES)]
    exported = runtime.compile("hearing", network.hearing, sound)(*sound)
    for mine, theirs in zip(exported, network.hearing(*sound), strict=True):
        assert torch.allclose(mine, theirs, atol=1e-5)
