"""Where networks run: exported once, found again, and never mistaken for another."""

import logging
import shutil
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from tiny import CONFIG, TORCH, tiny_network
from torch import Tensor, nn

from models import runtime as runtime_module
from models.errors import CheckpointError, OutOfRange
from models.mmtalker.network import KEY_OFFSETS
from models.mmtalker.streaming import _AtVertices
from models.runtime import Runtime, open_runtime


class Scale(nn.Module):
    """y = a · x, and the sum of y."""

    def __init__(self, factor: float = 2.0) -> None:
        super().__init__()
        self.factor = nn.Parameter(torch.tensor(factor))

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        return self.factor * x, (self.factor * x).sum()


class Twice(Scale):
    """Another class over the same weights."""


EXAMPLE = [torch.zeros(3)]


@pytest.fixture(scope="module")
def exported(tmp_path_factory: pytest.TempPathFactory) -> Runtime:
    """A runtime that has exported Scale."""
    runtime = open_runtime("cpu", tmp_path_factory.mktemp("cache"), threads=1)
    runtime.compile("scale", Scale(), EXAMPLE)
    return runtime


@pytest.fixture
def exports(exported: Runtime, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Runtime:
    """A runtime whose exports, counted in its cache, are all copies of Scale's."""
    (graph,) = (exported.cache / "onnx").iterdir()

    def export(module: nn.Module, example: Sequence[Tensor], path: Path, facts: object) -> None:
        path.parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(graph, path)

    monkeypatch.setattr(runtime_module, "_export", export)
    return replace(exported, cache=tmp_path)


def graphs(runtime: Runtime) -> list[Path]:
    return sorted((runtime.cache / "onnx").iterdir())


def test_a_compiled_module_is_a_function_to_a_tuple(exported):
    doubled, total = exported.compile("scale", Scale(), EXAMPLE)(torch.tensor([1.0, 2.0, 3.0]))
    assert doubled.tolist() == [2, 4, 6]
    assert total.item() == 12


def test_a_graph_that_came_with_the_weights_is_not_exported_again(exports, exported):
    shipped = replace(exports, shipped=exported.cache / "onnx")
    shipped.compile("scale", Scale(), EXAMPLE)
    assert not (exports.cache / "onnx").exists()
    shipped.compile("scale", Scale(3.0), EXAMPLE)
    assert len(graphs(exports)) == 1


def test_onnx_is_torch(tmp_path):
    """A tiny network's decoder, exported with its graph as gathers: to a tenth of a micrometre."""
    network = tiny_network()
    generator = torch.Generator().manual_seed(0)
    shapes = ((4,), (4, CONFIG.channels, CONFIG.width), (4, CONFIG.width), (4, len(KEY_OFFSETS), CONFIG.width), (4,))
    inputs = [torch.rand(shape, generator=generator) for shape in shapes]
    (onnx,) = open_runtime("cpu", tmp_path, threads=1).compile("decoder", _AtVertices(network), inputs)(*inputs)
    (reference,) = TORCH.compile("decoder", _AtVertices(network), inputs)(*inputs)
    assert (onnx - reference).abs().max() < 1e-7


def test_an_export_is_one_line_of_the_log(tmp_path, caplog):
    """Its tools would tell hundreds."""
    caplog.set_level(logging.INFO)
    Runtime(torch.device("cpu"), tmp_path).compile("scale", Scale(), EXAMPLE)
    assert [record.name for record in caplog.records] == ["models.runtime"]


def test_an_export_is_used_again_and_left_alone(exported):
    (graph,) = graphs(exported)
    before = graph.stat().st_mtime_ns
    exported.compile("scale", Scale(), EXAMPLE)
    assert graphs(exported) == [graph]
    assert graph.stat().st_mtime_ns == before


@pytest.mark.parametrize(
    ("module", "example"),
    [(Scale(2.5), torch.zeros(3)), (Scale(), torch.zeros(4)), (Scale(), torch.zeros(3).int()), (Twice(), EXAMPLE[0])],
    ids=["weight", "shape", "type", "class"],
)
def test_another_weight_shape_type_or_class_is_another_graph(exports, module, example):
    exports.compile("net", Scale(), EXAMPLE)
    exports.compile("net", Scale(), EXAMPLE)
    assert len(graphs(exports)) == 1
    exports.compile("net", module, [example])
    assert len(graphs(exports)) == 2


def test_another_code_is_another_graph(exports, monkeypatch, tmp_path):
    """A network's file that changed makes the graphs of yesterday stale."""
    exports.compile("net", Scale(), EXAMPLE)
    code = tmp_path / "network.py"
    code.write_text("changed")
    monkeypatch.setattr(runtime_module, "CODE", (*runtime_module.CODE, code))
    exports.compile("net", Scale(), EXAMPLE)
    assert len(graphs(exports)) == 2


def test_the_code_of_every_exported_module_counts():
    """_CompactWindow, _Hear, _AtVertices, _Latent and _AtPoints are what is compiled."""
    assert {"features.py", "streaming.py", "network.py", "compact_encoder.py"} <= {
        file.name for file in runtime_module.CODE
    }


def test_a_network_without_ste_is_another_graph(exports):
    """With the same weights: only its config tells it apart."""
    for ste in (True, False):
        exports.compile("net", tiny_network(replace(CONFIG, ste=ste)).surface, EXAMPLE)
    assert len(graphs(exports)) == 2


def test_an_export_that_fails_leaves_no_graph(tmp_path, monkeypatch):
    class Program:
        def save(self, path: str, external_data: bool) -> None:
            Path(path).write_bytes(b"half a graph")
            raise OSError("no space left on device")

    monkeypatch.setattr(torch.onnx, "export", lambda *_, **__: Program())
    with pytest.raises(OSError, match="no space left"):
        open_runtime("cpu", tmp_path).compile("scale", Scale(), EXAMPLE)
    assert list((tmp_path / "onnx").iterdir()) == []


@pytest.mark.parametrize("kept", [0, 0.1, 0.5, 0.99])
def test_a_damaged_graph_is_exported_again(exports, kept, caplog):
    exports.compile("net", Scale(), EXAMPLE)
    (graph,) = graphs(exports)
    whole = graph.read_bytes()
    graph.write_bytes(whole[: int(kept * len(whole))])
    doubled, _ = exports.compile("net", Scale(), EXAMPLE)(torch.ones(3))
    assert doubled.tolist() == [2, 2, 2]
    assert graph.read_bytes() == whole
    assert f"{graph} is damaged" in caplog.text


def test_a_new_export_that_is_damaged_too_is_refused_and_not_tried_for_ever(tmp_path, monkeypatch):
    made = []

    class Program:
        def save(self, path: str, external_data: bool) -> None:
            made.append(path)
            Path(path).write_bytes(b"half a graph")

    monkeypatch.setattr(torch.onnx, "export", lambda *_, **__: Program())
    for starts in (1, 2):
        with pytest.raises(CheckpointError, match=r"cannot load .* wanted an exported graph; check the disk"):
            open_runtime("cpu", tmp_path).compile("scale", Scale(), EXAMPLE)
        assert len(made) == starts


def test_exports_at_once_do_not_meet(tmp_path, monkeypatch):
    """Starts in two containers over one cache may have the same process number."""
    graph, made = tmp_path / "net.onnx", []

    class Program:
        def save(self, path: str, external_data: bool) -> None:
            partial = Path(path)
            partial.write_bytes(b"half a graph")
            made.append(partial)
            if len(made) == 1:
                runtime_module._export(Scale(), EXAMPLE, graph)
                assert partial.read_bytes() == b"half a graph"
            partial.write_bytes(b"a whole graph")

    monkeypatch.setattr(torch.onnx, "export", lambda *_, **__: Program())
    runtime_module._export(Scale(), EXAMPLE, graph)
    assert len(made) == 2
    assert list(tmp_path.iterdir()) == [graph]
    assert graph.read_bytes() == b"a whole graph"


def test_without_the_exporter_it_says_what_to_install(tmp_path, monkeypatch):
    def refuse(*_: object, **__: object) -> None:
        raise ImportError("No module named 'onnxscript'")

    monkeypatch.setattr(torch.onnx, "export", refuse)
    with pytest.raises(CheckpointError, match="install the cpu extra"):
        open_runtime("cpu", tmp_path).compile("scale", Scale(), EXAMPLE)


def test_the_providers_are_named(tmp_path):
    assert Runtime(torch.device("cpu"), tmp_path).providers == ["CPUExecutionProvider (onnxruntime)"]
    assert Runtime(torch.device("cuda"), tmp_path).providers == ["CUDA (torch)"]


def test_an_unknown_device_is_refused(tmp_path):
    with pytest.raises(OutOfRange, match="wanted auto, cpu or cuda") as refusal:
        open_runtime("tpu", tmp_path)
    assert refusal.value.field == "device"


def test_cuda_without_a_gpu_is_refused(tmp_path, monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    with pytest.raises(OutOfRange, match="torch sees no GPU"):
        open_runtime("cuda", tmp_path)


@pytest.mark.parametrize(
    ("device", "available", "taken"), [("auto", True, "cuda"), ("auto", False, "cpu"), ("cpu", True, "cpu")]
)
def test_auto_takes_a_gpu_where_there_is_one(tmp_path, monkeypatch, device, available, taken):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: available)
    assert open_runtime(device, tmp_path).device == torch.device(taken)


class Difference(nn.Module):
    def forward(self, one: Tensor, other: Tensor) -> Tensor:
        return one - other


def test_two_inputs_stay_two_though_their_examples_are_one(tmp_path):
    same = torch.zeros(3)
    function = open_runtime("cpu", tmp_path, threads=1).compile("difference", Difference(), [same, same])
    assert function(torch.full((3,), 5.0), torch.full((3,), 2.0))[0].tolist() == [3, 3, 3]


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
def test_cuda_is_the_cpu(tmp_path):
    network = tiny_network()
    generator = torch.Generator().manual_seed(0)
    shapes = ((4,), (4, CONFIG.channels, CONFIG.width), (4, CONFIG.width), (4, len(KEY_OFFSETS), CONFIG.width), (4,))
    inputs = [torch.rand(shape, generator=generator) for shape in shapes]
    (reference,) = TORCH.compile("decoder", _AtVertices(network), inputs)(*inputs)
    (moved,) = open_runtime("cuda", tmp_path).compile("decoder", _AtVertices(network), inputs)(*inputs)
    assert moved.device.type == "cuda"
    assert (moved.cpu() - reference).abs().max() < 1e-6
