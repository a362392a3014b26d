"""Weights on disk: what is written is read, and whatever does not fit is refused with its reason."""

import json
from dataclasses import dataclass
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file
from torch import nn

from models.checkpoint import (
    FORMAT,
    Header,
    config_from,
    file_sha256,
    load_into,
    pin,
    pinned_file,
    read_header,
    read_manifest,
    read_tensors,
    save_checkpoint,
)
from models.errors import CheckpointError

HEADER = Header("thing", {"width": 3, "name": "x"}, data="two clips", metrics={"error_mm": 0.5}, commit="abc")


@dataclass(frozen=True)
class Config:
    width: int
    name: str = "y"


def network(width: int = 3) -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(2, width), nn.BatchNorm1d(width))


def written(folder: Path, **changes) -> Path:
    """A checkpoint of `network`, with some tensors changed, or dropped where the change is None."""
    tensors = network().state_dict() | changes
    path = folder / "thing.safetensors"
    save_checkpoint(path, {name: tensor for name, tensor in tensors.items() if tensor is not None}, HEADER)
    return path


def with_metadata(folder: Path, **entries) -> Path:
    path = folder / "thing.safetensors"
    save_file({"weight": torch.zeros(2)}, path, metadata={"talker": json.dumps(entries)})
    return path


def test_a_checkpoint_is_read_as_it_was_written(tmp_path):
    path = written(tmp_path)
    read = read_tensors(path)
    assert read_header(path) == HEADER
    assert read.keys() == network().state_dict().keys()
    for name, tensor in network().state_dict().items():
        assert torch.equal(read[name], tensor), name
        assert read[name].dtype == tensor.dtype, name


def test_half_precision_halves_the_file_and_is_read_as_float32(tmp_path):
    tensors = {"weight": torch.randn(1000), "count": torch.arange(5)}
    for name, half in (("whole", False), ("half", True)):
        save_checkpoint(tmp_path / name, tensors, HEADER, half=half)
    read = read_tensors(tmp_path / "half")
    assert (tmp_path / "half").stat().st_size < 0.6 * (tmp_path / "whole").stat().st_size
    assert read["weight"].dtype == torch.float32
    assert torch.equal(read["weight"], tensors["weight"].half().float())
    assert torch.equal(read["count"], tensors["count"])
    assert read["count"].dtype == torch.int64


def test_a_write_replaces_the_file_and_leaves_nothing_beside_it(tmp_path):
    written(tmp_path / "new")
    path = written(tmp_path / "new", **{"0.bias": torch.ones(3)})
    assert torch.equal(read_tensors(path)["0.bias"], torch.ones(3))
    assert list((tmp_path / "new").iterdir()) == [path]


def test_a_write_that_fails_leaves_the_old_file(tmp_path):
    path = written(tmp_path)
    before = path.read_bytes()
    shared = torch.zeros(4)
    with pytest.raises(RuntimeError, match="share memory"):
        save_checkpoint(path, {"one": shared, "two": shared}, HEADER)
    assert path.read_bytes() == before


def test_tensors_are_loaded_into_a_module(tmp_path):
    module = network()
    nn.init.zeros_(module[0].weight)
    load_into(module, read_tensors(written(tmp_path)), "thing")
    assert torch.equal(module[0].weight, network()[0].weight)


def test_loading_lists_what_is_missing_unexpected_and_misshapen(tmp_path):
    tensors = read_tensors(written(tmp_path, **{"0.bias": None, "surplus": torch.zeros(1), "1.weight": torch.zeros(4)}))
    module = network()
    with pytest.raises(CheckpointError) as refusal:
        load_into(module, tensors, "the thing")
    message = str(refusal.value)
    assert message.startswith("the thing does not fit")
    assert "missing ['0.bias']" in message
    assert "unexpected ['surplus']" in message
    assert "1.weight (4,) for (3,)" in message


@pytest.mark.parametrize(
    "change", [{"0.bias": None}, {"surplus": torch.zeros(1)}, {"1.weight": torch.zeros(4)}], ids=str
)
def test_any_one_misfit_is_refused(tmp_path, change):
    with pytest.raises(CheckpointError, match="does not fit"):
        load_into(network(), read_tensors(written(tmp_path, **change)), "thing")


def test_a_config_comes_from_a_header():
    assert config_from(Config, HEADER) == Config(3, "x")


@pytest.mark.parametrize("config", [{"width": 3}, {"width": 3, "name": "x", "depth": 1}, {}])
def test_a_config_of_another_version_is_refused_by_its_fields(config):
    with pytest.raises(CheckpointError, match=r"differs in \['"):
        config_from(Config, Header("thing", config))


def test_a_missing_file_is_refused(tmp_path):
    for read in (read_header, read_tensors):
        with pytest.raises(CheckpointError, match="cannot be read as safetensors"):
            read(tmp_path / "none")


@pytest.mark.parametrize("size", [0, 4, 100, -1])
def test_a_file_cut_short_is_refused(tmp_path, size):
    path = written(tmp_path)
    path.write_bytes(path.read_bytes()[:size])
    for read in (read_header, read_tensors):
        with pytest.raises(CheckpointError, match="cannot be read as safetensors"):
            read(path)


def test_a_file_of_another_project_is_refused(tmp_path):
    save_file({"weight": torch.zeros(2)}, tmp_path / "foreign")
    with pytest.raises(CheckpointError, match="no talker header"):
        read_header(tmp_path / "foreign")


def test_a_later_format_is_refused(tmp_path):
    path = with_metadata(tmp_path, kind="thing", config={}, format=FORMAT + 1)
    with pytest.raises(CheckpointError, match=f"format {FORMAT + 1}; this version reads up to {FORMAT}"):
        read_header(path)


def test_a_later_format_with_fields_of_its_own_is_refused(tmp_path):
    with pytest.raises(CheckpointError):
        read_header(with_metadata(tmp_path, kind="thing", config={}, format=FORMAT + 1, lineage="b"))


def test_a_header_without_its_fields_is_refused(tmp_path):
    with pytest.raises(CheckpointError):
        read_header(with_metadata(tmp_path, format=FORMAT))


def test_a_header_that_is_no_json_is_refused(tmp_path):
    save_file({"weight": torch.zeros(2)}, tmp_path / "thing", metadata={"talker": "{"})
    with pytest.raises(CheckpointError):
        read_header(tmp_path / "thing")


def test_a_pinned_file_is_found_with_its_sum(tmp_path):
    path = written(tmp_path)
    digest = pin(tmp_path, "thing", path)
    assert pinned_file(tmp_path, "thing") == (path, digest)
    assert digest == file_sha256(path)
    assert read_manifest(tmp_path) == {"thing": {"file": "thing.safetensors", "sha256": digest}}


def test_pinning_keeps_the_other_entries(tmp_path):
    for name in ("b", "a"):
        (tmp_path / name).write_text(name)
        pin(tmp_path, name, tmp_path / name)
    (tmp_path / "b").write_text("changed")
    pin(tmp_path, "b", tmp_path / "b")
    assert list(read_manifest(tmp_path)) == ["a", "b"]
    assert pinned_file(tmp_path, "b")[1] == file_sha256(tmp_path / "b")


def test_a_sum_is_sha256(tmp_path):
    (tmp_path / "abc").write_bytes(b"abc")
    assert file_sha256(tmp_path / "abc") == "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"


def test_a_folder_without_a_manifest_is_refused(tmp_path):
    with pytest.raises(CheckpointError, match="TALKER_WEIGHTS"):
        pinned_file(tmp_path, "thing")


def test_a_name_that_is_not_in_the_manifest_is_refused_with_those_that_are(tmp_path):
    pin(tmp_path, "thing", written(tmp_path))
    with pytest.raises(CheckpointError, match=r"no 'other'; it holds \['thing'\]"):
        pinned_file(tmp_path, "other")


def test_a_file_that_the_manifest_names_and_is_gone_is_refused(tmp_path):
    path = written(tmp_path)
    pin(tmp_path, "thing", path)
    path.unlink()
    with pytest.raises(CheckpointError, match="is missing, though the manifest names it"):
        pinned_file(tmp_path, "thing")


def test_a_file_that_is_not_what_was_pinned_is_refused(tmp_path):
    path = written(tmp_path)
    pin(tmp_path, "thing", path)
    damaged = bytearray(path.read_bytes())
    damaged[-1] ^= 1
    path.write_bytes(damaged)
    with pytest.raises(CheckpointError, match="is damaged"):
        pinned_file(tmp_path, "thing")


@pytest.mark.parametrize("text", ["{", '{"thing": {"file": "thing.safetensors"}}'])
def test_a_damaged_manifest_is_refused(tmp_path, text):
    written(tmp_path)
    (tmp_path / "manifest.json").write_text(text)
    with pytest.raises(CheckpointError):
        pinned_file(tmp_path, "thing")
