"""The quantised auto-encoders: the paper's numbers, the nearest code, and checkpoints that fit."""

from dataclasses import asdict

import pytest
import torch
from tiny_textalker import JOINT, MOTION, WRINKLE, face, tiny_autoencoder
from torch import nn

from models.checkpoint import Header, read_tensors, save_checkpoint
from models.errors import CheckpointError
from models.runtime import open_runtime
from models.textalker.autoencoder import (
    MODALITIES,
    SIZES,
    Autoencoder,
    AutoencoderConfig,
    Codebook,
    ResidualBlock,
    SpatialAttention,
    load_autoencoder,
)


def kinds(network: nn.Module, kind: type[nn.Module]) -> list[nn.Module]:
    return [part for part in network.modules() if isinstance(part, kind)]


def images(config: AutoencoderConfig, count: int = 2, seed: int = 0) -> torch.Tensor:
    torch.manual_seed(seed)
    return torch.randn(count, config.channels, config.size, config.size)


# The paper's network (A.1).


@pytest.mark.parametrize("modality", MODALITIES)
def test_the_papers_network_has_the_papers_numbers(modality):
    """512² maps, five resizings, 12 residual blocks, 16×16×16 latents, 1024 × 16 codes."""
    config = SIZES["paper"][modality]
    with torch.device("meta"):
        network = Autoencoder(config)
        maps = torch.zeros(1, config.channels, 512, 512)
        latent = network.encode(maps)
        assert network.decoder(latent).shape == maps.shape
    assert latent.shape == (1, 16, 16, 16)
    assert network.codebook.entries.shape == (1024, 16)
    assert config.channels == (6 if modality == "joint" else 3)
    halving = [part for part in kinds(network.encoder, nn.Conv2d) if part.stride == (2, 2)]
    assert len(halving) == len(kinds(network.decoder, nn.Upsample)) == 5
    assert len(kinds(network.encoder, ResidualBlock)) == len(kinds(network.decoder, ResidualBlock)) == 12


def test_the_papers_network_attends_at_its_lowest_resolution_alone():
    with torch.device("meta"):
        network = Autoencoder(SIZES["paper"]["motion"])
    (last,), (first,) = (kinds(half, SpatialAttention) for half in (network.encoder, network.decoder))
    assert network.encoder.parts[-1] is last
    assert network.decoder.parts[0] is first


def test_the_papers_network_is_not_told_where_on_the_atlas_a_latent_lies():
    network = tiny_autoencoder(AutoencoderConfig(size=16, patch=4, widths=(8, 8), placed=False))
    for half in (network.encoder, network.decoder):
        assert not half.place.any()
        assert not half.place.requires_grad


@pytest.mark.parametrize(("modality", "size"), [("motion", 128), ("wrinkle", 256), ("joint", 256)])
def test_the_compact_network_has_the_papers_latents(modality, size):
    config, paper = (SIZES[name][modality] for name in ("compact", "paper"))
    assert (config.size, config.grid, config.latent, config.codes) == (size, 16, 16, 1024)
    assert config.latents == paper.latents == 4096
    with torch.device("meta"):
        network = Autoencoder(config)
        maps = torch.zeros(1, config.channels, size, size)
        latent = network.encode(maps)
        assert network.decoder(latent).shape == maps.shape
    assert latent[0].numel() == config.latents


# Codes.


def test_a_latent_becomes_its_nearest_entry():
    torch.manual_seed(0)
    book, latent = Codebook(30, 4), torch.randn(2, 4, 3, 5)
    nearest, codes = book(latent)
    flat = latent.permute(0, 2, 3, 1).reshape(-1, 4)
    assert torch.equal(codes.flatten(), torch.cdist(flat, book.entries).argmin(1))
    assert torch.equal(nearest, book.look_up(codes))
    assert torch.equal(nearest[1, :, 2, 3], book.entries[codes[1, 2, 3]])


def test_of_equal_entries_the_first_is_taken():
    book = Codebook(5, 2)
    book.entries.data.copy_(torch.tensor([[9.0, 9.0], [1.0, 0.0], [0.0, 1.0], [1.0, 0.0], [0.0, 1.0]]))
    latent = torch.tensor([[1.0, 0.0], [0.0, 1.0], [0.5, 0.5]]).T[None, :, :, None]
    assert book(latent).codes.flatten().tolist() == [1, 2, 1]


def test_entries_are_their_own_nearest():
    network = tiny_autoencoder(MOTION)
    codes = torch.arange(64).reshape(-1, MOTION.grid, MOTION.grid)
    assert torch.equal(network.codebook(network.codebook.look_up(codes)).codes, codes)


@torch.no_grad()
def test_the_decoder_hears_codes_and_nothing_else():
    """G(Q(z)): latents that share their codes share their map, and there and back is E, then that."""
    network = tiny_autoencoder(MOTION)
    latent = network.encode(images(MOTION))
    nearest, codes = network.codebook(latent)
    closer = latent + 0.5 * (nearest - latent)
    assert torch.equal(network.codebook(closer).codes, codes)
    assert torch.equal(network.decode(closer), network.decode(latent))
    assert torch.equal(network(images(MOTION)), network.decode(latent))
    assert torch.equal(network.decode(latent), network.decoder(nearest))


# Shapes.


@pytest.mark.parametrize("config", [MOTION, WRINKLE, JOINT], ids=lambda config: config.modality)
@torch.no_grad()
def test_there_and_back_keeps_the_shape_and_latents_are_a_grid(config):
    network = tiny_autoencoder(config)
    latent = network.encode(images(config, 3))
    assert latent.shape == (3, config.latent, config.grid, config.grid)
    assert latent[0].numel() == config.latents
    assert network(images(config, 3)).shape == (3, config.channels, config.size, config.size)


@torch.no_grad()
def test_maps_do_not_know_of_one_another():
    network = tiny_autoencoder(WRINKLE)
    together = network.encode(images(WRINKLE, 4))
    assert torch.allclose(network.encode(images(WRINKLE, 4)[2:3]), together[2:3], atol=1e-5)


@torch.no_grad()
def test_everywhere_looks_at_everywhere():
    """A change in one corner of a map reaches all latents, over what lies beyond the convolutions' reach."""
    network = tiny_autoencoder(AutoencoderConfig(size=64, patch=4, widths=(8,), blocks=1, placed=False))
    one = images(network.config, 1)
    other = one.clone()
    other[..., :4, :4] += 3
    changed = (network.encode(one) - network.encode(other)).abs().amax((0, 1))
    assert changed.shape == (16, 16)
    assert (changed > 1e-7).all()


@torch.no_grad()
def test_attention_is_the_softmax_of_every_places_query_with_every_key():
    torch.manual_seed(0)
    attention, x = SpatialAttention(8), torch.randn(2, 8, 3, 4)
    query, key, value = attention.qkv(attention.norm(x)).flatten(2).chunk(3, 1)
    share = (query.transpose(1, 2) @ key / 8**0.5).softmax(-1)
    mixed = (value @ share.transpose(1, 2)).reshape(x.shape)
    assert torch.allclose(attention(x), x + attention.out(mixed), atol=1e-5)


def test_onnxruntime_says_what_torch_says(tmp_path):
    """Encoder, codes and decoder, in one graph."""
    network, maps = tiny_autoencoder(MOTION), images(MOTION)
    (back,) = open_runtime("cpu", tmp_path, threads=1).compile("there-and-back", network, (torch.zeros(maps.shape),))(
        maps
    )
    with torch.no_grad():
        assert torch.allclose(back, network(maps), atol=1e-4)


# Checkpoints.


def store(path, network: Autoencoder, kind: str = "autoencoder", *, half: bool = False, **changes: object):
    header = Header(kind, {**asdict(network.config), **changes})
    save_checkpoint(path, network.state_dict(), header, half=half)
    return path


@torch.no_grad()
def test_a_checkpoint_gives_the_network_back(tmp_path):
    network = tiny_autoencoder(MOTION)
    loaded = load_autoencoder(store(tmp_path / "a.safetensors", network), "motion", face().atlas.fingerprint)
    assert loaded.config == network.config
    assert not loaded.training
    assert torch.equal(loaded(images(MOTION)), network(images(MOTION)))


def test_what_moves_survives_half_precision(tmp_path):
    """Vertices beyond 2048 have no float16 of their own."""
    network = tiny_autoencoder(MOTION)
    network.moving += 5001
    path = store(tmp_path / "a.safetensors", network, half=True)
    assert torch.equal(load_autoencoder(path, "motion", face().atlas.fingerprint).moving, network.moving)


@pytest.mark.parametrize(
    ("modality", "atlas", "kind", "match"),
    [
        ("wrinkle", "", "autoencoder", "autoencoder of motion on atlas .*; wanted an autoencoder of wrinkle"),
        ("motion", "another", "autoencoder", "wanted an autoencoder of motion on another"),
        ("motion", "", "mmtalker", "holds a mmtalker"),
    ],
)
def test_a_network_of_other_maps_is_refused(modality, atlas, kind, match, tmp_path):
    path = store(tmp_path / "a.safetensors", tiny_autoencoder(MOTION), kind)
    with pytest.raises(CheckpointError, match=match):
        load_autoencoder(path, modality, atlas or face().atlas.fingerprint)


def test_a_network_that_does_not_fit_is_refused(tmp_path):
    """Other tensors than its config says, and a config that is of another version."""
    atlas = face().atlas.fingerprint
    with pytest.raises(CheckpointError, match="does not fit"):
        load_autoencoder(store(tmp_path / "a.safetensors", tiny_autoencoder(MOTION), codes=65), "motion", atlas)
    with pytest.raises(CheckpointError, match=r"config differs in \['commitment'\]"):
        load_autoencoder(store(tmp_path / "b.safetensors", tiny_autoencoder(MOTION), commitment=1), "motion", atlas)
    path = tmp_path / "c.safetensors"
    tensors = {k: v for k, v in read_tensors(tmp_path / "a.safetensors").items() if k != "moving"}
    save_checkpoint(path, tensors, Header("autoencoder", asdict(tiny_autoencoder(MOTION).config)))
    with pytest.raises(CheckpointError, match=r"missing \['moving'\]"):
        load_autoencoder(path, "motion", atlas)
