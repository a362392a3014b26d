"""The training loop: a run that is cut off goes on as if it had not been, and what it writes is what it did."""

import json
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from models.checkpoint import Header, read_header, read_tensors, save_checkpoint
from models.errors import CheckpointError
from training.loop import LoopConfig, fit, last_metrics, learning_rate_at

CONFIG = LoopConfig(steps=20, learning_rate=0.01, warmup=4, save_every=5, evaluate_every=5, log_every=1, ema=0.8)
HEADER = Header("tiny", {"width": 6}, data="noise")
pytestmark = pytest.mark.filterwarnings("ignore:Converting a tensor with requires_grad")
"""As `test_what_is_logged_has_no_gradient` tells."""


class Interrupted(Exception):
    """Somebody pulled the plug."""


def network(width: int = 6) -> nn.Module:
    """With dropout, which draws numbers, and batch norm, which has state of both kinds."""
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(3, width), nn.BatchNorm1d(width), nn.Dropout(0.3), nn.Linear(width, 1))


def batch_at(step: int) -> Tensor:
    return torch.from_numpy(np.random.default_rng(step).standard_normal((8, 3)).astype(np.float32))


def losses_of(module: nn.Module, batch: Tensor) -> Mapping[str, Tensor]:
    error = (module(batch)[:, 0] - batch.prod(1)).square().mean()
    return {"total": error, "error": error.detach()}


def run(folder: Path, config: LoopConfig = CONFIG, module: nn.Module | None = None, **changes) -> nn.Module:
    arguments = {"batch_at": batch_at, "losses_of": losses_of} | changes
    return fit(module or network(), config=config, folder=folder, header=HEADER, **arguments)


def cut_at(step: int):
    def batch(now: int) -> Tensor:
        if now == step:
            raise Interrupted
        return batch_at(now)

    return batch


def rows(folder: Path) -> list[dict]:
    return [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]


@pytest.mark.parametrize("step", [3, 10, 13, 19])
def test_a_run_that_was_cut_off_gives_the_weights_of_an_uncut_one(step, tmp_path):
    """Bit for bit: weights, averages and the optimiser's moments."""
    run(tmp_path / "uncut")
    with pytest.raises(Interrupted):
        run(tmp_path / "cut", batch_at=cut_at(step))
    run(tmp_path / "cut")
    for name in ("state.safetensors", "averaged.safetensors"):
        assert (tmp_path / "cut" / name).read_bytes() == (tmp_path / "uncut" / name).read_bytes()


def test_it_goes_on_from_the_last_state_and_not_from_the_start(tmp_path):
    with pytest.raises(Interrupted):
        run(tmp_path, batch_at=cut_at(13))
    seen: list[int] = []
    run(tmp_path, batch_at=lambda step: seen.append(step) or batch_at(step))
    assert seen == list(range(10, 20))


def test_a_finished_run_is_left_as_it_is(tmp_path):
    first = run(tmp_path).state_dict()
    written = {path: path.read_bytes() for path in tmp_path.iterdir()}
    again = run(tmp_path, batch_at=cut_at(0)).state_dict()
    assert {path: path.read_bytes() for path in tmp_path.iterdir()} == written
    assert all(torch.equal(again[name], first[name]) for name in first)


def test_averages_are_an_exponential_mean_of_the_weights(tmp_path):
    """Its decay is (step + 1) / (step + 10), at most 0.8; whole numbers, such as counters, are the last ones."""
    seen: list[dict[str, Tensor]] = []

    def watched(module: nn.Module, batch: Tensor) -> Mapping[str, Tensor]:
        seen.append({name: tensor.clone() for name, tensor in module.named_parameters()})
        return losses_of(module, batch)

    result = run(tmp_path, losses_of=watched)
    state = read_tensors(tmp_path / "state.safetensors")
    mean = seen[0]
    for step in range(20):
        after = seen[step + 1] if step < 19 else {name: state[f"module/{name}"] for name in mean}
        decay = min(0.8, (step + 1) / (step + 10))
        mean = {name: decay * mean[name] + (1 - decay) * after[name] for name in mean}
    averaged = read_tensors(tmp_path / "averaged.safetensors")
    for name, tensor in mean.items():
        assert torch.allclose(averaged[name], tensor.detach(), atol=1e-6)
        assert torch.equal(result.state_dict()[name], averaged[name])
    assert int(averaged["1.num_batches_tracked"]) == 20
    assert not result.training


def test_training_learns(tmp_path):
    run(tmp_path, replace(CONFIG, steps=200))
    errors = [row["error"] for row in rows(tmp_path) if "error" in row]
    assert np.mean(errors[-30:]) < 0.8 * np.mean(errors[:30])


def test_metrics_are_lines_of_json(tmp_path):
    """One for each step that is logged, with every term, the gradient's norm, the rate and the speed."""
    run(tmp_path, replace(CONFIG, log_every=4))
    assert [row["step"] for row in rows(tmp_path)] == [4, 8, 12, 16, 20]
    for row in rows(tmp_path):
        assert row.keys() == {"step", "lr", "steps_per_s", "total", "error", "norm"}
        assert row["lr"] == learning_rate_at(row["step"] - 1, CONFIG)
        assert all(np.isfinite(value) for value in row.values())


def test_what_is_in_the_folder_stays(tmp_path):
    (tmp_path / "notes.txt").write_text("mine")
    (tmp_path / "metrics.jsonl").write_text('{"step": 0}\n')
    run(tmp_path)
    assert (tmp_path / "notes.txt").read_text() == "mine"
    assert rows(tmp_path)[0] == {"step": 0}
    assert {path.name for path in tmp_path.iterdir()} == {
        *("notes.txt", "metrics.jsonl", "state.safetensors", "averaged.safetensors")
    }


def test_the_header_goes_with_the_averages(tmp_path):
    run(tmp_path)
    assert read_header(tmp_path / "averaged.safetensors") == HEADER
    assert read_header(tmp_path / "state.safetensors").kind == f"{HEADER.kind}, in training"


def test_an_evaluation_sees_the_averages_and_changes_nothing(tmp_path):
    seen: list[dict[str, Tensor]] = []

    def evaluate(module: nn.Module) -> Mapping[str, float]:
        assert not module.training
        assert not torch.is_grad_enabled()
        torch.rand(5)
        seen.append({name: tensor.clone() for name, tensor in module.state_dict().items()})
        return {"score": 0.5}

    run(tmp_path / "watched", evaluate=evaluate)
    run(tmp_path / "alone")
    for name in ("state.safetensors", "averaged.safetensors"):
        assert (tmp_path / "watched" / name).read_bytes() == (tmp_path / "alone" / name).read_bytes()
    averaged = read_tensors(tmp_path / "watched" / "averaged.safetensors")
    assert all(torch.equal(seen[-1][name], tensor) for name, tensor in averaged.items())
    evaluations = [row for row in rows(tmp_path / "watched") if "evaluation" in row]
    assert evaluations == [{"step": step, "evaluation": {"score": 0.5}} for step in (5, 10, 15, 20)]


def test_the_learning_rate_climbs_and_falls():
    """A line from a fourth to the whole in four steps, then half a cosine down to 2 %, and no further."""
    rates = [learning_rate_at(step, CONFIG) / CONFIG.learning_rate for step in range(25)]
    assert rates[:5] == pytest.approx([0.25, 0.5, 0.75, 1, 1])
    assert rates[12] == pytest.approx(0.51)
    assert rates[20:] == pytest.approx([0.02] * 5)
    assert rates[4:21] == sorted(rates[4:21], reverse=True)


@pytest.mark.parametrize("steps", [1, 4])
def test_a_run_within_the_warm_up_has_a_rate(steps):
    assert 0 < learning_rate_at(steps - 1, replace(CONFIG, steps=steps)) <= CONFIG.learning_rate


def test_the_state_of_another_network_is_refused(tmp_path):
    run(tmp_path)
    with pytest.raises(CheckpointError, match="does not fit"):
        run(tmp_path, module=network(width=7))


def test_a_state_that_is_a_checkpoint_of_something_else_is_refused(tmp_path):
    save_checkpoint(tmp_path / "state.safetensors", network().state_dict(), HEADER)
    with pytest.raises(CheckpointError, match="is of another run"):
        run(tmp_path)


def test_a_damaged_state_is_refused_and_kept(tmp_path):
    (tmp_path / "state.safetensors").write_bytes(b"damaged")
    with pytest.raises(CheckpointError, match="cannot be read"):
        run(tmp_path)
    assert (tmp_path / "state.safetensors").read_bytes() == b"damaged"


def test_what_is_logged_has_no_gradient(tmp_path, monkeypatch):
    asked: list[bool] = []
    plain = Tensor.__float__
    monkeypatch.setattr(Tensor, "__float__", lambda value: asked.append(value.requires_grad) or plain(value))
    run(tmp_path)
    assert asked
    assert not any(asked)


def test_the_state_of_another_recipe_is_refused(tmp_path):
    """The same tensors, but another config in the header: an ablation, say."""
    run(tmp_path)
    other = replace(HEADER, config={"width": 6, "attention": False})
    with pytest.raises(CheckpointError):
        fit(network(), batch_at, losses_of, CONFIG, tmp_path, other)


def test_the_state_of_other_data_is_refused(tmp_path):
    """Or the checkpoint would claim to have learned from the last alone."""
    run(tmp_path)
    with pytest.raises(CheckpointError, match="is of another run"):
        fit(network(), batch_at, losses_of, CONFIG, tmp_path, replace(HEADER, data="another corpus"))


def test_the_state_of_another_pace_is_refused_and_a_longer_run_is_not(tmp_path):
    run(tmp_path)
    with pytest.raises(CheckpointError, match="is of another run"):
        fit(network(), batch_at, losses_of, replace(CONFIG, learning_rate=0.5), tmp_path, HEADER)
    longer = replace(CONFIG, steps=CONFIG.steps + 1, save_every=1, evaluate_every=1, log_every=1)
    fit(network(), batch_at, losses_of, longer, tmp_path, HEADER)


def test_a_run_that_was_cut_off_logs_every_step_once(tmp_path):
    with pytest.raises(Interrupted):
        run(tmp_path, batch_at=cut_at(13))
    run(tmp_path)
    assert [row["step"] for row in rows(tmp_path)] == list(range(1, 21))


def test_the_last_metrics_are_the_last_losses_and_the_last_evaluation(tmp_path):
    assert last_metrics(tmp_path) == {}
    (tmp_path / "metrics.jsonl").write_text(
        '{"step": 1, "total": 3.0}\n{"step": 1, "evaluation": {"sel": 0.5}}\n{"step": 2, "total": 2.0}\n'
    )
    assert last_metrics(tmp_path) == {"step": 2, "total": 2.0, "evaluation": {"sel": 0.5}}
