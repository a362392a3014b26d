"""Where networks run: one seam over onnxruntime on the CPU and torch on a GPU.

A module is compiled for fixed example inputs. On the CPU it is exported to ONNX once, into a cache, and served by
onnxruntime, which is about twice as fast as torch there; on CUDA it stays in torch. Either way it is then a function
from tensors to a tuple of tensors, on the device, which the engine loop runs for all streams (`models.batching`).
"""

import copy
import hashlib
import logging
import warnings
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, is_dataclass
from importlib.metadata import version
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor, nn

from models.batching import Axes, EngineLoop, Function, stack
from models.errors import CheckpointError, OutOfRange
from models.graphs import open_graph

if TYPE_CHECKING:
    from onnxruntime import InferenceSession

log = logging.getLogger(__name__)

PLAIN = (bool, int, float, str, tuple, slice)
CODE = sorted(Path(__file__).parent.rglob("*.py"))
"""What an exported graph may have come from."""
NO_FACTS: Mapping[str, str] = {}
CUDA_BATCH = 8
"""Calls that run at once on a GPU, which one stream's does not fill. A CPU is full with one."""


@dataclass(frozen=True)
class Runtime:
    """A device, and where exported graphs are kept. threads 0 leaves their number to the libraries; without `exports`
    torch runs networks on a CPU as well: the reference for what is exported. `shipped` is a folder of graphs that came
    with the weights: it is read first, and never written. Without a loop functions run in the thread that calls them.
    """

    device: torch.device
    cache: Path
    threads: int = 0
    exports: bool = True
    shipped: Path | None = None
    loop: EngineLoop | None = None

    @property
    def providers(self) -> list[str]:
        """What executes the networks."""
        if self._in_torch:
            return [f"{self.device.type.upper()} (torch)"]
        return ["CPUExecutionProvider (onnxruntime)"]

    @property
    def _in_torch(self) -> bool:
        return self.device.type == "cuda" or not self.exports

    def compile(
        self,
        name: str,
        module: nn.Module,
        example: Sequence[Tensor],
        axes: Axes | None = None,
        facts: Mapping[str, str] = NO_FACTS,
    ) -> Function:
        """`module` as a function of tensors like the example's.

        axes: where rows lie in inputs and outputs, of a module whose calls may run as one batch; None lets them run one
        by one. facts: what an exported graph says of itself.
        """
        module = module.eval()
        if self._in_torch:
            run = self._in_place(module)
        else:
            if axes is not None and self.loop is not None:
                example = stack([tuple(example)] * self.loop.batch, axes.inputs)
            run = _on_tensors(self._open(name, module, example, facts)[1])
        return run if self.loop is None else self.loop.function(name, run, axes)

    def _in_place(self, module: nn.Module) -> Function:
        """`module` in torch. It returns when the GPU is done: until then calls gather that make the next batch."""
        module = module.to(self.device)

        def run(*inputs: Tensor) -> tuple[Tensor, ...]:
            with torch.inference_mode():
                outputs = _as_tuple(module(*(x.to(self.device) for x in inputs)))
            if self.device.type == "cuda":
                torch.cuda.current_stream(self.device).synchronize()
            return outputs

        return run

    def export(
        self, name: str, module: nn.Module, example: Sequence[Tensor], facts: Mapping[str, str] = NO_FACTS
    ) -> Path:
        """`module` as an ONNX file in the cache; where the CPU runs it, the very graph that `compile` runs."""
        if self.device.type == "cuda":
            module = copy.deepcopy(module).cpu()
        return self._open(name, module.eval(), example, facts)[0]

    def _open(
        self,
        name: str,
        module: nn.Module,
        example: Sequence[Tensor],
        facts: Mapping[str, str],
    ) -> "tuple[Path, InferenceSession]":
        file = f"{name}-{_fingerprint(module, example, facts)}.onnx"
        path = self.cache / "onnx" / file
        for known in (path,) if self.shipped is None else (self.shipped / file, path):
            session = self._cached(known)
            if session is not None:
                return known, session
        _export(module, example, path, facts)
        return path, open_graph(path, self.threads)

    def _cached(self, path: Path) -> "InferenceSession | None":
        """The graph of an earlier start. None if there is none, or one that is damaged: it can be made again."""
        if not path.is_file():
            return None
        try:
            return open_graph(path, self.threads)
        except CheckpointError as error:
            log.warning("%s is damaged (%s): exporting it again", path, error.__cause__)
            return None


def on_arrays(function: Function) -> Callable[[np.ndarray], np.ndarray]:
    """The only result of a function of one tensor, from array to array."""
    return lambda rows: np.asarray(function(torch.from_numpy(rows))[0].cpu().numpy())


def open_runtime(device: str, cache: Path, threads: int = 0, batch: int = 0, shipped: Path | None = None) -> Runtime:
    """`auto` takes a GPU where torch sees one. OutOfRange if `cuda` is asked for and there is none.

    batch: how many calls of a function run as one; 0 leaves it to the device.
    """
    if device not in ("auto", "cpu", "cuda"):
        raise OutOfRange(f"device {device!r}; wanted auto, cpu or cuda", field="device")
    available = torch.cuda.is_available()
    if device == "cuda" and not available:
        raise OutOfRange("device cuda, but torch sees no GPU; install the gpu extra or take device cpu", field="device")
    if threads:
        torch.set_num_threads(threads)
    taken = torch.device("cuda" if available and device != "cpu" else "cpu")
    loop = EngineLoop(batch or (CUDA_BATCH if taken.type == "cuda" else 1))
    return Runtime(taken, cache, threads, shipped=shipped, loop=loop)


def _on_tensors(session: "InferenceSession") -> Function:
    names = [entry.name for entry in session.get_inputs()]

    def run(*inputs: Tensor) -> tuple[Tensor, ...]:
        feed = {key: np.ascontiguousarray(x.numpy()) for key, x in zip(names, inputs, strict=True)}
        return tuple(torch.from_numpy(array) for array in session.run(None, feed))

    return run


def _as_tuple(result: Any) -> tuple[Tensor, ...]:
    return (result,) if isinstance(result, Tensor) else tuple(result)


def _fingerprint(module: nn.Module, example: Sequence[Tensor], facts: Mapping[str, str]) -> str:
    """Changes with the weights, the settings, the shapes, the facts, the code and the exporter."""
    digest = hashlib.sha256(f"{version('torch')} {version('onnxruntime')} {type(module)}".encode())
    for tensor in example:
        digest.update(str((tuple(tensor.shape), tensor.dtype)).encode())
    for name, tensor in sorted([*module.named_parameters(), *module.named_buffers()]):
        if tensor.layout is torch.strided:
            digest.update(name.encode() + tensor.detach().cpu().contiguous().numpy().tobytes())
    for name, part in module.named_modules():
        settings = {key: value for key, value in vars(part).items() if isinstance(value, PLAIN) or is_dataclass(value)}
        digest.update(f"{name} {sorted(settings.items())}".encode())
    digest.update(repr(sorted(facts.items())).encode())
    for file in CODE:
        digest.update(file.read_bytes())
    return digest.hexdigest()[:16]


def _export(module: nn.Module, example: Sequence[Tensor], path: Path, facts: Mapping[str, str] = NO_FACTS) -> None:
    """Write the graph whole or not at all, whoever else writes it. CheckpointError where the exporter is missing."""
    log.info("exporting %s to ONNX, once", path.stem)
    path.parent.mkdir(parents=True, exist_ok=True)
    for chatty in ("torch.onnx", "onnxscript", "onnx_ir"):  # hundreds of lines, and torchvision that we do not use
        logging.getLogger(chatty).setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # the exporter warns of its own deprecations
            # cloned: examples that are one tensor would be taken for one input
            inputs = tuple(tensor.clone() for tensor in example)
            program = torch.onnx.export(module, inputs, dynamo=True, verbose=False)
    except ImportError as error:
        raise CheckpointError(
            f"exporting to ONNX needs onnx and onnxscript ({error}); install the cpu extra"
        ) from error
    assert program is not None
    if facts:
        program.model.metadata_props.update(facts)
    with TemporaryDirectory(prefix=f"{path.stem}.", dir=path.parent) as folder:
        partial = Path(folder, path.name)
        program.save(str(partial), external_data=False)
        partial.replace(path)
