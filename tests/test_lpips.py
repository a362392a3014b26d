"""LPIPS: nothing between equal images, the published sum over layers, and weights from torchvision's file."""

from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor
from torch.nn import functional

from models.errors import CheckpointError
from training.lpips import HEADS, open_lpips

CONVOLUTIONS = {0: (64, 3, 11), 3: (192, 64, 5), 6: (384, 192, 3), 8: (256, 384, 3), 10: (256, 256, 3)}
"""torchvision's alexnet, `features`: channels out and in, and kernel, by number."""


def torchvision_state() -> dict[str, Tensor]:
    """Random weights under torchvision's names, the classifier included."""
    random, state = torch.Generator().manual_seed(0), {}
    for number, (leaving, entering, kernel) in CONVOLUTIONS.items():
        spread = (2 / (entering * kernel**2)) ** 0.5
        state[f"features.{number}.weight"] = torch.randn(leaving, entering, kernel, kernel, generator=random) * spread
        state[f"features.{number}.bias"] = torch.zeros(leaving)
    return state | {"classifier.1.weight": torch.zeros(2, 2), "classifier.1.bias": torch.zeros(2)}


@pytest.fixture(scope="module")
def alexnet(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("alexnet") / "alexnet-owt-7be5be79.pth"
    torch.save(torchvision_state(), path)
    return path


def images(seed: int) -> Tensor:
    return torch.rand(2, 3, 64, 80, generator=torch.Generator().manual_seed(seed))


def test_equal_images_are_at_no_distance_and_others_at_some(alexnet):
    distance = open_lpips(alexnet)
    assert distance(images(0), images(0)).tolist() == [0, 0]
    assert torch.equal(distance(images(0), images(1)), distance(images(1), images(0)))
    assert distance(images(0), images(1)).min() > 0.01


def test_the_more_an_image_changes_the_further_it_is(alexnet):
    distance, mixes = open_lpips(alexnet), [images(0).lerp(images(1), share) for share in (0.0, 0.1, 0.3, 1.0)]
    ways = torch.stack([distance(images(0), mix) for mix in mixes])
    assert (ways.diff(dim=0) > 0).all()


def test_a_distance_is_the_published_sum(alexnet):
    """Over the layers after their ReLU: unit channels, squared differences, weighed, averaged over places."""
    state, heads = torchvision_state(), torch.load(HEADS, map_location="cpu", weights_only=True)
    shift, scale = torch.tensor([-0.030, -0.088, -0.188]), torch.tensor([0.458, 0.448, 0.450])
    x, y = (((2 * image.movedim(1, -1) - 1 - shift) / scale).movedim(-1, 1) for image in (images(0), images(1)))
    wanted = torch.zeros(2)
    for layer, (number, stride, padding) in enumerate(((0, 4, 2), (3, 1, 2), (6, 1, 1), (8, 1, 1), (10, 1, 1))):
        if number in (3, 6):
            x, y = (functional.max_pool2d(features, 3, 2) for features in (x, y))
        weight = state[f"features.{number}.weight"]
        x, y = (functional.conv2d(features, weight, stride=stride, padding=padding).relu() for features in (x, y))
        unit = [features / features.norm(dim=1, keepdim=True) for features in (x, y)]
        unit = [torch.nan_to_num(features) for features in unit]
        wanted += functional.conv2d((unit[0] - unit[1]) ** 2, heads[f"lin{layer}.model.1.weight"]).mean((1, 2, 3))
    assert np.allclose(open_lpips(alexnet)(images(0), images(1)), wanted, rtol=1e-4)


def test_safetensors_do_as_well(alexnet, tmp_path):
    save_file(torchvision_state(), tmp_path / "alexnet.safetensors")
    one, other = (open_lpips(path)(images(0), images(1)) for path in (alexnet, tmp_path / "alexnet.safetensors"))
    assert torch.equal(one, other)


def test_heads_are_the_published_ones():
    """Channels never count for less than nothing, and all layers count."""
    heads = torch.load(HEADS, map_location="cpu", weights_only=True)
    assert [len(head.flatten()) for head in heads.values()] == [64, 192, 384, 256, 256]
    assert all(head.min() >= 0 and head.max() > 0 for head in heads.values())


@pytest.mark.parametrize("content", [b"", b"no weights at all"])
def test_a_file_that_is_no_weights_is_refused(content, tmp_path):
    (tmp_path / "alexnet.pth").write_bytes(content)
    with pytest.raises(CheckpointError, match="cannot be read as weights of AlexNet"):
        open_lpips(tmp_path / "alexnet.pth")


def test_weights_of_another_network_are_refused(tmp_path):
    save_file({"features.0.weight": torch.zeros(64, 3, 3, 3)}, tmp_path / "vgg.safetensors")
    with pytest.raises(CheckpointError, match=r"vgg\.safetensors"):
        open_lpips(tmp_path / "vgg.safetensors")
