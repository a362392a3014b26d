"""Likeness: nothing between equal maps, more the further they are apart; and VGG-19 from torchvision's file."""

from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor

from models.errors import CheckpointError
from training.perceptual import STAND_IN, VGG_LAYERS, PatchCritic, VggDistance, gradient_distance, open_perceptual

VGG_CHANNELS = {0: 64, 2: 64, 5: 128, 7: 128, 10: 256, 12: 256, 14: 256, 16: 256, 19: 512, 21: 512, 23: 512, 25: 512}
"""torchvision's vgg19, `features`: output channels of the convolutions by their number; 28, 30, 32 and 34 follow."""


def torchvision_state() -> dict[str, Tensor]:
    """Random weights under torchvision's names, the layers that are not used and the classifier included."""
    random, entering, state = torch.Generator().manual_seed(0), 3, {}
    for number, leaving in (VGG_CHANNELS | dict.fromkeys((28, 30, 32, 34), 512)).items():
        used = number <= 28
        spread = (2 / (9 * entering)) ** 0.5
        size = (leaving, entering, 3, 3) if used else (1,)
        state[f"features.{number}.weight"] = torch.randn(size, generator=random) * spread
        state[f"features.{number}.bias"] = torch.zeros(leaving)
        entering = leaving
    return state | {"classifier.0.weight": torch.zeros(2, 2), "classifier.0.bias": torch.zeros(2)}


@pytest.fixture(scope="module")
def weights(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("vgg") / "vgg19-dcbb9e9d.pth"
    torch.save(torchvision_state(), path)
    return path


def maps(seed: int = 0, channels: int = 3, count: int = 2) -> Tensor:
    return torch.randn(count, channels, 16, 16, generator=torch.Generator().manual_seed(seed))


# The stand-in.


def test_without_weights_it_says_so():
    loss, name = open_perceptual(None)
    assert loss is gradient_distance
    assert name == STAND_IN


def test_equal_maps_are_alike_and_so_are_those_that_differ_by_a_shade():
    assert gradient_distance(maps(), maps()) == 0
    assert gradient_distance(maps(), maps() + 0.7) == pytest.approx(0, abs=1e-6)


def test_a_step_counts_at_every_scale_as_much_as_it_is_wide():
    """An edge of height 1 across 16 texels: a 15th, 7th, 3rd and whole of the differences across it."""
    step = torch.zeros(1, 1, 16, 16)
    step[..., 8:] = 1
    assert gradient_distance(step, torch.zeros(1, 1, 16, 16)) == pytest.approx((1 / 15 + 1 / 7 + 1 / 3 + 1) / 4)
    assert gradient_distance(step.mT, torch.zeros(1, 1, 16, 16)) == pytest.approx((1 / 15 + 1 / 7 + 1 / 3 + 1) / 4)


def test_a_line_out_of_its_place_is_less_alike_than_one_that_is_faint():
    line = torch.zeros(1, 1, 16, 16)
    line[..., 5] = 1
    assert gradient_distance(line.roll(4, 3), line) > gradient_distance(0.5 * line, line) > 0


# VGG-19.


def test_layers_are_torchvisions():
    convolutions = {k: part for k, part in enumerate(VggDistance().features) if isinstance(part, torch.nn.Conv2d)}
    assert {k: part.out_channels for k, part in convolutions.items()} == VGG_CHANNELS | {28: 512}
    assert VGG_LAYERS.count("pool") == 4


def test_weights_come_from_torchvisions_file(weights, tmp_path):
    """Or the same as safetensors: the same distance, 0 between equal maps."""
    loss, name = open_perceptual(weights)
    assert name == "VGG-19 of vgg19-dcbb9e9d.pth"
    assert loss(maps(), maps()) == 0
    save_file(torchvision_state(), tmp_path / "vgg.safetensors")
    other, _ = open_perceptual(tmp_path / "vgg.safetensors")
    assert loss(maps(0), maps(1)) == other(maps(0), maps(1)) > 0.01


def test_features_are_compared_after_the_relus_of_five_layers(weights):
    """conv1_1, 2_1, 3_1, 4_1, 5_1 of ImageNet-normalised images, by torchvision's numbers."""
    state, wanted = torchvision_state(), 0.0
    mean, deviation = torch.tensor([0.485, 0.456, 0.406]), torch.tensor([0.229, 0.224, 0.225])
    x, y = (((image / 10 + 0.5).movedim(1, -1) - mean) / deviation for image in (maps(0), maps(1)))
    x, y = x.movedim(-1, 1), y.movedim(-1, 1)
    for number in (*VGG_CHANNELS, 28):
        if number in (5, 10, 19, 28):
            x, y = (torch.nn.functional.max_pool2d(image, 2) for image in (x, y))
        weight, bias = state[f"features.{number}.weight"], state[f"features.{number}.bias"]
        x, y = (torch.nn.functional.conv2d(image, weight, bias, padding=1).relu() for image in (x, y))
        if number in (0, 5, 10, 19, 28):
            wanted += float((x - y).abs().mean()) / 5
    assert open_perceptual(weights)[0](maps(0), maps(1)).item() == pytest.approx(wanted, rel=1e-4)


def test_six_channels_are_two_maps(weights):
    loss, _ = open_perceptual(weights)
    both = [torch.cat([maps(seed), maps(seed + 2)], 1) for seed in (0, 1)]
    apart = (loss(maps(0), maps(1)) + loss(maps(2), maps(3))) / 2
    assert loss(*both).item() == pytest.approx(apart.item(), rel=1e-4)


def test_gradients_reach_the_maps_and_not_the_network(weights):
    loss, _ = open_perceptual(weights)
    guess = maps(1).requires_grad_()
    loss(guess, maps(0)).backward()
    assert guess.grad is not None
    assert guess.grad.abs().max() > 0
    assert not any(part.requires_grad for part in loss.parameters())


def refused(path: Path, match: str = "cannot be read as weights of VGG-19") -> None:
    with pytest.raises(CheckpointError, match=match):
        open_perceptual(path)


@pytest.mark.parametrize("name", ["vgg.pth", "vgg.safetensors"])
@pytest.mark.parametrize("content", [b"", b"no weights at all, but some text", b"\x80\x02N.", b"PK\x03\x04"])
def test_a_file_that_is_no_weights_is_refused(name, content, tmp_path):
    (tmp_path / name).write_bytes(content)
    refused(tmp_path / name)


@pytest.mark.parametrize("name", ["vgg.pth", "vgg.safetensors"])
def test_a_file_that_is_not_there_is_refused(name, tmp_path):
    refused(tmp_path / name)


def test_a_file_that_would_run_code_is_refused(tmp_path):
    torch.save({"features.0.weight": VggDistance}, tmp_path / "vgg.pth")
    refused(tmp_path / "vgg.pth")


def test_weights_of_another_network_are_refused(tmp_path):
    """Layers that are missing, and layers of another size."""
    state = torchvision_state()
    torch.save({name: part for name, part in state.items() if not name.startswith("features.28")}, tmp_path / "a.pth")
    refused(tmp_path / "a.pth", r"missing \['features.28.bias', 'features.28.weight'\]")
    torch.save(state | {"features.0.bias": torch.zeros(3)}, tmp_path / "b.pth")
    refused(tmp_path / "b.pth", r"features.0.bias \(3,\) for \(64,\)")


# The critic.


def test_the_critic_judges_patches_and_not_the_whole():
    """A grid of logits; a change in one corner leaves those in the opposite one."""
    torch.manual_seed(0)
    critic, one = PatchCritic(3, 4, width=8), torch.randn(1, 3, 128, 128)
    other = one.clone()
    other[..., :8, :8] += 1
    changed = (critic(one) - critic(other)).abs()[0, 0]
    assert changed.shape == (8, 8)
    assert changed[0, 0] > 0
    assert not changed[4:, 4:].any()
