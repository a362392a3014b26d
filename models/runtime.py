"""Where networks run: one seam over onnxruntime on the CPU and torch on a GPU.

A module is compiled for fixed example inputs. On the CPU it is exported to ONNX once, into a cache, and served by
onnxruntime, which is about twice as fast as torch there; on CUDA it stays in torch. Either way it is then a function
from tensors to a tuple of tensors, on the device.
"""

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
from jaxtyping import Float32
from torch import Tensor, nn

from models.errors import CheckpointError, OutOfRange

if TYPE_CHECKING:
    from onnxruntime import InferenceSession

log = logging.getLogger(__name__)

PLAIN = (bool, int, float, str, tuple, slice)
Function = Callable[..., tuple[Tensor, ...]]
CODE = sorted(Path(__file__).parent.rglob("*.py"))
"""What an exported graph may have come from."""


@dataclass(frozen=True)
class Runtime:
    """A device, and where exported graphs are kept. threads 0 leaves their number to the libraries."""

    device: torch.device
    cache: Path
    threads: int = 0

    @property
    def providers(self) -> list[str]:
        """What executes the networks."""
        return ["CUDA (torch)"] if self.device.type == "cuda" else ["CPUExecutionProvider (onnxruntime)"]

    def compile(
        self, name: str, module: nn.Module, example: Sequence[Tensor], dynamic: Mapping[int, int] | None = None
    ) -> Function:
        """`module` as a function. `dynamic` maps an input's position to its axis of varying length (one length for
        all).
        """
        module = module.eval()
        if self.device.type == "cuda":
            module = module.to(self.device)
            return lambda *inputs: _as_tuple(_run(module, [x.to(self.device) for x in inputs]))
        return self._serve(name, module, example, dynamic or {})

    def _serve(self, name: str, module: nn.Module, example: Sequence[Tensor], dynamic: Mapping[int, int]) -> Function:
        path = self.cache / "onnx" / f"{name}-{_fingerprint(module, example)}.onnx"
        session = self._cached(path)
        if session is None:
            _export(module, example, dynamic, path)
            session = self._load(path)
        names = [entry.name for entry in session.get_inputs()]

        def run(*inputs: Tensor) -> tuple[Tensor, ...]:
            feed = {key: np.ascontiguousarray(x.numpy()) for key, x in zip(names, inputs, strict=True)}
            return tuple(torch.from_numpy(array) for array in session.run(None, feed))

        return run

    def _cached(self, path: Path) -> "InferenceSession | None":
        """The graph of an earlier start. None if there is none, or one that is damaged: it can be made again."""
        if not path.is_file():
            return None
        try:
            return self._load(path)
        except CheckpointError as error:
            log.warning("%s is damaged (%s): exporting it again", path, error.__cause__)
            return None

    def _load(self, path: Path) -> "InferenceSession":
        import onnxruntime

        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = self.threads
        options.log_severity_level = 3
        options.add_session_config_entry("session.intra_op.allow_spinning", "0")
        try:
            return onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
        except Exception as error:  # the classes that onnxruntime raises share no other base
            raise CheckpointError(
                f"onnxruntime cannot load {path} ({error}); wanted an exported graph; check the disk, and reinstall "
                "the cpu extra"
            ) from error


def in_batches(function: Function, rows: Float32[np.ndarray, "rows ..."], size: int) -> Float32[np.ndarray, "rows ..."]:
    """The only result of a function compiled for `size` rows, for any number of them; the last ones are padded."""
    results = []
    for start in range(0, len(rows), size):
        own = rows[start : start + size]
        padded = np.concatenate([own, np.zeros((size - len(own), *own.shape[1:]), np.float32)])
        (result,) = function(torch.from_numpy(np.ascontiguousarray(padded)))
        results.append(result[: len(own)].cpu().numpy())
    return np.concatenate(results)


def open_runtime(device: str, cache: Path, threads: int = 0) -> Runtime:
    """`auto` takes a GPU where torch sees one. OutOfRange if `cuda` is asked for and there is none."""
    if device not in ("auto", "cpu", "cuda"):
        raise OutOfRange(f"device {device!r}; wanted auto, cpu or cuda", field="device")
    available = torch.cuda.is_available()
    if device == "cuda" and not available:
        raise OutOfRange("device cuda, but torch sees no GPU; install the gpu extra or take device cpu", field="device")
    if threads:
        torch.set_num_threads(threads)
    return Runtime(torch.device("cuda" if available and device != "cpu" else "cpu"), cache, threads)


def _run(module: nn.Module, inputs: Sequence[Tensor]) -> Any:
    with torch.inference_mode():
        return module(*inputs)


def _as_tuple(result: Any) -> tuple[Tensor, ...]:
    return (result,) if isinstance(result, Tensor) else tuple(result)


def _fingerprint(module: nn.Module, example: Sequence[Tensor]) -> str:
    """Changes with the weights, the settings, the shapes, the code and the exporter."""
    digest = hashlib.sha256(f"{version('torch')} {version('onnxruntime')} {type(module)}".encode())
    for tensor in example:
        digest.update(str((tuple(tensor.shape), tensor.dtype)).encode())
    for name, tensor in sorted([*module.named_parameters(), *module.named_buffers()]):
        if tensor.layout is torch.strided:
            digest.update(name.encode() + tensor.detach().cpu().contiguous().numpy().tobytes())
    for name, part in module.named_modules():
        settings = {key: value for key, value in vars(part).items() if isinstance(value, PLAIN) or is_dataclass(value)}
        digest.update(f"{name} {sorted(settings.items())}".encode())
    for file in CODE:
        digest.update(file.read_bytes())
    return digest.hexdigest()[:16]


def _export(module: nn.Module, example: Sequence[Tensor], dynamic: Mapping[int, int], path: Path) -> None:
    """Write the graph whole or not at all, whoever else writes it. CheckpointError where the exporter is missing."""
    log.info("exporting %s to ONNX, once", path.stem)
    length = torch.export.Dim("length", min=2)
    shapes = tuple({dynamic[k]: length} if k in dynamic else {} for k in range(len(example))) if dynamic else None
    path.parent.mkdir(parents=True, exist_ok=True)
    for chatty in ("torch.onnx", "onnxscript", "onnx_ir"):  # hundreds of lines, and torchvision that we do not use
        logging.getLogger(chatty).setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # the exporter warns of its own deprecations
            # cloned: examples that are one tensor would be taken for one input
            inputs = tuple(tensor.clone() for tensor in example)
            program = torch.onnx.export(module, inputs, dynamo=True, dynamic_shapes=shapes, verbose=False)
    except ImportError as error:
        raise CheckpointError(
            f"exporting to ONNX needs onnx and onnxscript ({error}); install the cpu extra"
        ) from error
    assert program is not None
    with TemporaryDirectory(prefix=f"{path.stem}.", dir=path.parent) as folder:
        partial = Path(folder, path.name)
        program.save(str(partial), external_data=False)
        partial.replace(path)
