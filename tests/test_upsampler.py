"""Upsampling: an untrained network is bicubic, tiles are the whole, strips are the map, what is neutral stays so."""

from dataclasses import asdict, replace
from pathlib import Path

import numpy as np
import pytest
import torch
from tiny import TORCH
from torch.nn import functional

from models.checkpoint import Header, save_checkpoint
from models.errors import CheckpointError, OutOfRange
from models.runtime import Runtime, open_runtime
from models.textalker.maps import from_network, log_ratio
from models.textalker.upsampler import (
    SIZES,
    MapUpsampler,
    Upsampler,
    UpsamplerConfig,
    as_image,
    enlarge,
    guide_of,
    load_upsampler,
    resized,
    tiled,
)

PLAIN = UpsamplerConfig(32, 1, width=4, depth=2, tile=8, atlas="tiny")
DENSE = UpsamplerConfig(16, 2, "dense", width=4, depth=1, growth=2, tile=16, atlas="tiny")


def network(config: UpsamplerConfig = PLAIN, seed: int = 0) -> Upsampler:
    """Seeded, and no longer bicubic."""
    torch.manual_seed(seed)
    result = Upsampler(config)
    for stage in result.stages:
        stage.leave.weight.data.normal_(0, 0.2)
        stage.leave.bias.data.normal_(0, 0.2)
    return result.eval()


def wrinkles(config: UpsamplerConfig = PLAIN, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).normal(0, 0.1, (config.size, config.size, 3)).astype(np.float32)


def some_guide(config: UpsamplerConfig = PLAIN, seed: int = 1) -> np.ndarray:
    return np.random.default_rng(seed).normal(0, 1, (config.large, config.large)).astype(np.float32)


def as_tensors(config: UpsamplerConfig) -> tuple[torch.Tensor, torch.Tensor]:
    return as_image(wrinkles(config)), torch.from_numpy(some_guide(config))[None, None]


@torch.no_grad()
@pytest.mark.parametrize("config", [PLAIN, DENSE])
def test_an_untrained_network_is_bicubic(config):
    image, guide = as_tensors(config)
    guess, wanted = Upsampler(config)(image, guide), image
    for _ in range(config.stages):
        wanted = enlarge(wanted, 4)
    assert guess.shape == (1, 3, config.large, config.large)
    assert torch.equal(guess, wanted)


@torch.no_grad()
@pytest.mark.parametrize(
    "config",
    [PLAIN, replace(PLAIN, tile=12), replace(PLAIN, tile=32), replace(DENSE, size=64, stages=1, tile=8)],
)
def test_tiles_are_the_whole(config):
    """In single precision; whatever the tiles, also where they do not divide the map."""
    (stage,), (image, guide) = network(config).stages, as_tensors(config)
    by_tiles = tiled(lambda *inputs: (stage(*inputs),), image, guide, config)
    torch.testing.assert_close(by_tiles, stage(image, guide), atol=1e-5, rtol=1e-5)


@torch.no_grad()
def test_two_stages_in_tiles_are_the_whole():
    config = replace(DENSE, size=32, stages=2, tile=8)
    assert config.stages == 2
    served = MapUpsampler(network(config), TORCH).enlarge(wrinkles(config), some_guide(config))
    whole = network(config)(*as_tensors(config))
    torch.testing.assert_close(served, whole, atol=1e-5, rtol=1e-5)


@torch.no_grad()
def test_paper_runs():
    """All 23 blocks of both stages, on a small map."""
    config = replace(SIZES["paper"], size=8)
    made = network(config)(*as_tensors(config))
    assert made.shape == (1, 3, 128, 128)
    assert made.isfinite().all()


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
def test_cuda_is_the_cpu(tmp_path):
    served, reference = (
        MapUpsampler(network(), runtime).enlarge(wrinkles(), some_guide())
        for runtime in (open_runtime("cuda", tmp_path), TORCH)
    )
    torch.testing.assert_close(served, reference, atol=1e-4, rtol=1e-4)


@torch.no_grad()
def test_a_smaller_overlap_would_show():
    class Short(UpsamplerConfig):
        overlap = 2

    (stage,), (image, guide) = network().stages, as_tensors(PLAIN)
    by_tiles = tiled(lambda *inputs: (stage(*inputs),), image, guide, Short(**asdict(PLAIN)))
    assert (by_tiles - stage(image, guide)).abs().max() > 1e-3


@torch.no_grad()
def test_nothing_is_added_where_nothing_folds():
    """A neutral map stays neutral, exactly, whatever the guide; and far from a fold the map is bicubic."""
    image, guide = as_tensors(PLAIN)
    assert not network()(torch.zeros_like(image), guide).any()
    image[:, :, :, 8:] = 0
    added = network()(image, guide) - enlarge(image, 4)
    assert added[..., :32].any()
    assert not added[..., 4 * (8 + 3) :].any()


@torch.no_grad()
def test_the_guide_is_seen_and_may_be_left_out():
    image, guide = as_tensors(PLAIN)
    guided, other = network()(image, guide), network()(image, torch.zeros_like(guide))
    assert (guided - other).abs().max() > 1e-3
    upsampler = MapUpsampler(network(), TORCH)
    torch.testing.assert_close(upsampler.enlarge(wrinkles()), other, atol=1e-5, rtol=1e-5)


@torch.no_grad()
@pytest.mark.parametrize("size", [8, 32, 128, 512])
def test_strips_are_the_map(size):
    """Any size is the network's own, enlarged bicubically or averaged."""
    made = network()(*as_tensors(PLAIN))
    whole = (
        functional.interpolate(made, size=size, mode="bicubic")
        if size > 128
        else functional.avg_pool2d(made, 128 // size)
    )
    strips = list(MapUpsampler(network(), TORCH).rows(wrinkles(), size, some_guide()))
    assert max(len(strip) for strip in strips) <= 64
    wanted = log_ratio(from_network(whole[0].permute(1, 2, 0).numpy()))
    np.testing.assert_allclose(np.concatenate(strips), wanted, atol=1e-5)


def test_rows_are_the_same_whichever_are_asked_for():
    image = torch.randn(1, 3, 16, 16, generator=torch.Generator().manual_seed(0))
    whole = resized(image, 128, slice(0, 128))
    for start, stop in ((0, 8), (3, 29), (64, 65), (120, 128)):
        assert torch.equal(resized(image, 128, slice(start, stop)), whole[:, :, start:stop])


@pytest.mark.parametrize("size", [0, 3000, 31, 16384])
def test_other_sizes_are_refused_before_the_first_strip(size):
    with pytest.raises(OutOfRange, match=f"a map of {size} texels; wanted one of"):
        MapUpsampler(network(), TORCH).rows(wrinkles(), size)


def test_maps_and_guides_of_other_sizes_are_refused():
    upsampler = MapUpsampler(network(), TORCH)
    with pytest.raises(OutOfRange, match=r"wrinkles of shape \(16, 16, 3\); wanted \(32, 32, 3\)"):
        upsampler.rows(np.zeros((16, 16, 3), np.float32), 512)
    with pytest.raises(OutOfRange, match=r"a guide of shape \(32, 32\); wanted 128²"):
        upsampler.rows(wrinkles(), 512, np.zeros((32, 32), np.float32))


def test_a_guide_knows_relief_but_not_how_dark_the_skin_is():
    random = np.random.default_rng(0)
    texture = np.repeat(100 + random.integers(-9, 10, (128, 128, 1)), 3, 2)
    light, dark = (guide_of(np.round(texture * gain).astype(np.uint8), 64) for gain in (1.8, 0.9))
    assert not guide_of(np.full((128, 128, 3), 90, np.uint8), 64).any()
    assert light.std() > 0.1
    assert np.corrcoef(light.ravel(), dark.ravel())[0, 1] > 0.98  # but for 8 bits
    np.testing.assert_allclose(light.std(), dark.std(), rtol=0.1)


def test_a_small_texture_guides_without_blocks():
    """Enlarged smoothly: where the texture is a slope, the guide has no steps."""
    ramp = np.repeat(np.repeat(np.linspace(80, 160, 32)[:, None, None], 32, 1), 3, 2).astype(np.uint8)
    guide = guide_of(ramp, 256)
    inner = slice(40, -40)
    assert np.abs(np.diff(guide, axis=0)[inner]).max() < 0.25 * np.abs(15 * np.diff(np.log(ramp[..., 0]), axis=0)).max()


def test_onnxruntime_gives_what_torch_gives(tmp_path):
    served = MapUpsampler(network(), Runtime(torch.device("cpu"), tmp_path)).enlarge(wrinkles(), some_guide())
    reference = MapUpsampler(network(), TORCH).enlarge(wrinkles(), some_guide())
    torch.testing.assert_close(served, reference, atol=1e-4, rtol=1e-4)


def test_compact_is_small_and_paper_is_the_papers():
    """Under a million parameters; 23 RRDBs of 64 channels, twice, from 512² to 8192²."""
    with torch.device("meta"):
        counts = {name: sum(p.numel() for p in Upsampler(config).parameters()) for name, config in SIZES.items()}
    assert counts["compact"] < 1e6 < 3e7 < counts["paper"]
    assert [SIZES[name].large for name in ("compact", "paper")] == [1024, 8192]


def store(path: Path, kind: str = "upsampler", config: UpsamplerConfig = PLAIN) -> Path:
    save_checkpoint(path, network(config).state_dict(), Header(kind, asdict(config)))
    return path


@torch.no_grad()
def test_a_checkpoint_gives_the_network_back(tmp_path):
    loaded = load_upsampler(store(tmp_path / "a.safetensors"), "tiny")
    assert loaded.config == PLAIN
    assert torch.equal(loaded(*as_tensors(PLAIN)), network()(*as_tensors(PLAIN)))


@pytest.mark.parametrize(
    ("kind", "atlas", "match"), [("autoencoder", "tiny", "holds a autoencoder"), ("upsampler", "x", "of atlas tiny")]
)
def test_another_network_is_refused(kind, atlas, match, tmp_path):
    with pytest.raises(CheckpointError, match=match):
        load_upsampler(store(tmp_path / "a.safetensors", kind), atlas)
