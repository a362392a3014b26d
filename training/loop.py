"""One training loop for every recipe: resume, exponential moving average, progress, metrics to a file.

A recipe is a module, a function step → batch, and a function (module, batch) → losses by name. Batches depend on the
step alone, so a run that was cut off and goes on gives what an uncut run gives: bit for bit on one thread, to rounding
on several, where torch's scattered sums have no fixed order.
"""

import json
import math
import time
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from tqdm import tqdm

from models.checkpoint import Header, load_into, read_header, read_tensors, save_checkpoint
from models.errors import CheckpointError


@dataclass(frozen=True)
class LoopConfig:
    """How long and how fast."""

    steps: int
    learning_rate: float
    warmup: int = 300
    weight_decay: float = 0.01
    clip_norm: float = 1.0
    ema: float = 0.999
    save_every: int = 500
    evaluate_every: int = 1000
    log_every: int = 50


WHEN = ("steps", "save_every", "evaluate_every", "log_every")
"""What a run may change when it goes on."""


def learning_rate_at(step: int, config: LoopConfig) -> float:
    """Linear warm-up, then a cosine to 2 %."""
    if step < config.warmup:
        return config.learning_rate * (step + 1) / config.warmup
    progress = (step - config.warmup) / max(1, config.steps - config.warmup)
    return config.learning_rate * (0.02 + 0.98 * (0.5 + 0.5 * math.cos(math.pi * min(1.0, progress))))


def fit(
    module: nn.Module,
    batch_at: Callable[[int], Any],
    losses_of: Callable[[nn.Module, Any], Mapping[str, Tensor]],
    config: LoopConfig,
    folder: Path,
    header: Header,
    evaluate: Callable[[nn.Module], Mapping[str, float]] | None = None,
) -> nn.Module:
    """Train, or go on where `folder` left off; returns the module with its averaged weights.

    How long to train may change from one call to the next; data and pace may not.

    `losses_of` returns named terms, `total` among them, which is minimised. The folder receives `state.safetensors`
    (all that resuming needs), `averaged.safetensors` and `metrics.jsonl`. CheckpointError if the run of another
    recipe, config, pace or data lies there.
    """
    folder.mkdir(parents=True, exist_ok=True)
    optimiser = torch.optim.AdamW(
        module.parameters(), config.learning_rate, (0.9, 0.98), weight_decay=config.weight_decay
    )
    averaged = {name: tensor.detach().clone() for name, tensor in module.state_dict().items()}
    own = _of_run(header, config)
    first = _resume(folder / "state.safetensors", module, optimiser, averaged, own)
    _forget_after(first, folder / "metrics.jsonl")
    module.train()
    started, seen = time.monotonic(), first
    with (
        (folder / "metrics.jsonl").open("a") as log,
        tqdm(total=config.steps, initial=first, dynamic_ncols=True) as bar,
    ):
        for step in range(first, config.steps):
            torch.manual_seed(step)
            for group in optimiser.param_groups:
                group["lr"] = learning_rate_at(step, config)
            losses = losses_of(module, batch_at(step))
            optimiser.zero_grad(set_to_none=True)
            losses["total"].backward()
            norm = nn.utils.clip_grad_norm_(module.parameters(), config.clip_norm)
            optimiser.step()
            _average(averaged, module, min(config.ema, (step + 1) / (step + 10)))
            bar.update()
            done = step + 1
            if done % config.log_every == 0:
                row = {name: float(value.detach()) for name, value in losses.items()} | {"norm": float(norm)}
                bar.set_postfix({name: f"{value:.3g}" for name, value in row.items()}, refresh=False)
                speed = (done - seen) / (time.monotonic() - started)
                started, seen = time.monotonic(), done
                _log(log, {"step": done, "lr": optimiser.param_groups[0]["lr"], "steps_per_s": speed} | row)
            if evaluate is not None and (done % config.evaluate_every == 0 or done == config.steps):
                _log(log, {"step": done, "evaluation": dict(_with_weights(module, averaged, evaluate))})
            if done % config.save_every == 0 or done == config.steps:
                _save(folder, done, module, optimiser, averaged, own)
                save_checkpoint(folder / "averaged.safetensors", averaged, header)
    module.load_state_dict(averaged)
    return module.eval()


def _average(averaged: dict[str, Tensor], module: nn.Module, decay: float) -> None:
    for name, tensor in module.state_dict().items():
        if tensor.is_floating_point():
            averaged[name].lerp_(tensor.detach(), 1 - decay)
        else:
            averaged[name].copy_(tensor)


def _with_weights(
    module: nn.Module, weights: Mapping[str, Tensor], evaluate: Callable[[nn.Module], Mapping[str, float]]
) -> Mapping[str, float]:
    own = {name: tensor.detach().clone() for name, tensor in module.state_dict().items()}
    module.load_state_dict(weights)
    module.eval()
    with torch.no_grad():
        result = evaluate(module)
    module.load_state_dict(own)
    module.train()
    return result


def _log(file: Any, row: Mapping[str, Any]) -> None:
    file.write(json.dumps(row) + "\n")
    file.flush()


def _of_run(header: Header, config: LoopConfig) -> Header:
    """The header of a run that may go on: it knows its pace, too. As JSON, which knows no tuples."""
    pace = {name: value for name, value in asdict(config).items() if name not in WHEN}
    stored = json.loads(json.dumps({**header.config, "pace": pace}))
    return replace(header, kind=f"{header.kind}, in training", config=stored)


def _save(
    folder: Path,
    step: int,
    module: nn.Module,
    optimiser: torch.optim.Optimizer,
    averaged: dict[str, Tensor],
    header: Header,
) -> None:
    state = {f"module/{name}": tensor for name, tensor in module.state_dict().items()}
    state |= {f"averaged/{name}": tensor for name, tensor in averaged.items()}
    for index, moments in optimiser.state_dict()["state"].items():
        state |= {f"optimiser/{index}/{name}": torch.as_tensor(value) for name, value in moments.items()}
    # cloned: safetensors refuses tensors that share memory
    state = {name: tensor.detach().clone() for name, tensor in state.items()} | {"step": torch.tensor(step)}
    save_checkpoint(folder / "state.safetensors", state, header)


def last_metrics(folder: Path) -> dict[str, Any]:
    """The last losses that a run logged, and its last evaluation if it had any."""
    path, result = folder / "metrics.jsonl", dict[str, Any]()
    for line in path.read_text().splitlines() if path.is_file() else ():
        result |= json.loads(line)
    return result


def _forget_after(step: int, log: Path) -> None:
    """Drop the rows of steps that are done again."""
    if log.is_file():
        kept = [line for line in log.read_text().splitlines(keepends=True) if json.loads(line)["step"] <= step]
        log.write_text("".join(kept))


def _resume(
    path: Path, module: nn.Module, optimiser: torch.optim.Optimizer, averaged: dict[str, Tensor], header: Header
) -> int:
    if not path.is_file():
        return 0
    stored = read_header(path)
    if (stored.kind, stored.config, stored.data) != (header.kind, header.config, header.data):
        raise CheckpointError(f"{path} is of another run ({stored.kind}); give another folder, or its own recipe")
    state = read_tensors(path)

    def part(prefix: str) -> dict[str, Tensor]:
        return {name.removeprefix(prefix): tensor for name, tensor in state.items() if name.startswith(prefix)}

    load_into(module, part("module/"), str(path))
    averaged.update(part("averaged/"))
    moments: dict[int, dict[str, Tensor]] = {}
    for name, tensor in part("optimiser/").items():
        index, key = name.split("/")
        moments.setdefault(int(index), {})[key] = tensor
    optimiser.load_state_dict(optimiser.state_dict() | {"state": moments})
    return int(state["step"])
