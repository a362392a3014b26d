"""Asking a cluster: what is lost is asked again, what waits is not lost, and nothing waits for ever."""

import ast
import io
import pickle
import threading
from collections.abc import Generator
from dataclasses import replace
from itertools import chain, cycle, repeat
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import yaml
from conftest import wait_until
from replicas import IMPATIENT, FakeReplicas, a_worker, cluster_engine, tiny
from tiny import speech
from tiny_engine import write_weights
from tiny_textalker import WRINKLE

from models.cluster.ahead import read_ahead
from models.cluster.asker import Asker
from models.cluster.calls import Describe, Window
from models.cluster.edge import APPLICATION, DEPLOYMENT
from models.cluster.edge import cluster_engine as edge_engine
from models.cluster.networks import AHEAD, AnchorQuery
from models.cluster.packing import pack, unpack
from models.core import AnimateOptions
from models.engine import Sampling
from models.errors import Busy, CheckpointError, EngineLost, InputError, OutOfRange, TalkerError, UnknownName
from models.performance import Pivots, run
from service.settings import Settings


def windows(replicas: FakeReplicas) -> list[Window]:
    return [call for call in replicas.calls if isinstance(call, Window)]


def test_every_error_survives_its_journey() -> None:
    """A refusal on a replica is the same refusal at the edge: class, words, code, field and all."""
    kinds = TalkerError.__subclasses__() + InputError.__subclasses__()
    for kind in (kind for kind in kinds if kind.__module__ == TalkerError.__module__):
        if kind is UnknownName:
            made = kind("style", "none", ["calm"])
        else:
            made = kind("gone", **{"retry_after_s": 3} if issubclass(kind, Busy) else {"field": "audio"})
        for came in (pickle.loads(pickle.dumps(made)), unpack(pack(made))):
            assert (type(came), str(came), vars(came)) == (type(made), str(made), vars(made))
    own = unpack(pack(OutOfRange("too much", field="fps", code="another")))
    assert (own.code, own.field) == ("another", "fps")


def test_a_state_weighs_what_is_in_it() -> None:
    """Not what its tensors are views of."""
    whole = torch.arange(1_000_000.0)
    view = whole.reshape(1000, 1000)[3, :10]
    assert len(pack({"state": view})) < 1000 < len(pickle.dumps({"state": view}))
    assert torch.equal(unpack(pack(view)), view)
    array = np.zeros(1_000_000, np.float32)[:10]
    assert len(pack(array)) < 1000


def test_a_lost_window_is_asked_of_another_with_the_same_state(tmp_path: Path) -> None:
    replicas = FakeReplicas([a_worker(), a_worker()], faults=iter(["", "", "before", "after", ""]))
    clip = cluster_engine(replicas, tmp_path).animate(speech(1.5), AnimateOptions("textalker"))
    assert len(list(clip.frames)) == clip.frame_count
    again = [pack(call) for call in windows(replicas)]
    assert len(set(again)) < len(again)
    assert len({call.take.request for call in windows(replicas)}) == 1


def test_a_call_that_kills_is_not_asked_for_ever(tmp_path: Path) -> None:
    """Whatever it is that kills replicas, one request kills no more than patience has losses."""
    replicas = FakeReplicas([a_worker()], faults=chain([""], repeat("before")))
    clip = cluster_engine(replicas, tmp_path).animate(speech(0.5), AnimateOptions())
    with pytest.raises(EngineLost, match="3 replicas were lost"):
        list(clip.frames)
    assert replicas.tries == 1 + IMPATIENT.losses


def test_a_window_waits_for_a_cluster_to_come_back(tmp_path: Path) -> None:
    """However often nobody takes it: waiting is no loss."""
    replicas = FakeReplicas([a_worker()], faults=chain([""], repeat("nobody", 20)))
    engine = cluster_engine(replicas, tmp_path, replace(IMPATIENT, wait_s=60))
    clip = engine.animate(speech(0.5), AnimateOptions())
    assert len(list(clip.frames)) == clip.frame_count


def test_a_window_does_not_wait_for_ever(tmp_path: Path) -> None:
    replicas = FakeReplicas([a_worker()], faults=chain([""], repeat("nobody")))
    clip = cluster_engine(replicas, tmp_path).animate(speech(0.5), AnimateOptions())
    with pytest.raises(EngineLost, match=r"no replica took it in 0\.2 s"):
        list(clip.frames)


def test_closing_ends_the_waiting(tmp_path: Path) -> None:
    replicas = FakeReplicas([a_worker()], faults=repeat("nobody"))
    asker = Asker(replicas, replace(IMPATIENT, wait_s=600))
    caught: list[BaseException] = []

    def ask() -> None:
        try:
            asker.ask(Describe())
        except EngineLost as error:
            caught.append(error)

    asking = threading.Thread(target=ask)
    asking.start()
    wait_until(lambda: replicas.tries)
    asker.close()
    asking.join(20)
    assert caught
    assert replicas.closed.is_set()


def test_a_replica_of_other_weights_is_passed_over(tmp_path: Path) -> None:
    """As while a cluster gets new ones: a clip ends with the networks that it began with."""
    replicas = FakeReplicas([a_worker(), a_worker(Sampling("ancestral", 7))])
    clip = cluster_engine(replicas, tmp_path).animate(speech(0.5), AnimateOptions())
    assert len(list(clip.frames)) == clip.frame_count
    replicas.workers = replicas.workers[1:]
    with pytest.raises(EngineLost, match="replicas were lost"):
        list(cluster_engine_of(replicas, tmp_path).frames)


def cluster_engine_of(replicas: FakeReplicas, cache: Path):  # type: ignore[no-untyped-def]
    """A clip that was begun with the weights of another replica."""
    engine = cluster_engine(FakeReplicas([a_worker()]), cache)
    engine._networks._asker.replicas = replicas
    return engine.animate(speech(0.5), AnimateOptions())


def test_a_replica_prepares_for_a_head_once() -> None:
    """And forgets the one that was not asked for longest."""
    worker, rest = a_worker(), tiny().head.atlas.vertex_anchors
    parts = [type(rest)(*(part[:count] for part in rest)) for count in range(1, 18)]
    first, second, *_ = [worker.query(str(len(part.face)), part) for part in parts[:16]]
    assert worker.query("1", rest) is first
    worker.query("17", parts[16])
    assert worker.query("1", rest) is first
    assert worker.query("2", parts[1]) is not second


def test_anchors_are_named_by_their_content() -> None:
    rest = tiny().head.atlas.vertex_anchors
    other = rest._replace(weights=rest.weights + np.float32(1e-3))
    assert AnchorQuery(rest).key == AnchorQuery(type(rest)(*(part.copy() for part in rest))).key
    assert AnchorQuery(rest).key != AnchorQuery(other).key


def test_another_style_from_the_next_window_on(tmp_path: Path) -> None:
    """As a live stream asks: on the cluster as here."""
    engine = cluster_engine(FakeReplicas([a_worker(), a_worker()]), tmp_path)
    sound, made = speech(6).samples, []
    calm, lively = (Pivots(engine.styles[id].motion, None) for id in ("calm", "lively"))
    for backend in (engine._networks, tiny()):
        performance = backend.performance(AnimateOptions(), backend.query(tiny().head.atlas.vertex_anchors))
        state, offsets = performance.start(calm), []
        for second in range(6):
            if second == 3:
                state = performance.restyle(state, lively)
            batches, state = run(
                performance.step(state, sound[second * 16_000 :][:16_000], 6.0 if second == 5 else None)
            )
            offsets += [batch.offsets.tobytes() for batch in batches]
        made.append(offsets)
    assert made[0] == made[1]


def test_a_replica_that_always_fails_knows_it_is_broken(monkeypatch: pytest.MonkeyPatch) -> None:
    """Of what is no refusal; one call that succeeds is enough to be well."""
    worker = a_worker()
    body = pack(Describe())

    def fail(*_: object) -> None:
        raise RuntimeError("device-side assert")

    with monkeypatch.context() as patch:
        patch.setattr(Describe, "answer", fail)
        for _ in range(3):
            assert not worker.broken
            with pytest.raises(RuntimeError, match="device-side"):
                worker.answer(body)
    assert worker.broken
    worker.answer(body)
    assert not worker.broken


def test_reading_ahead_is_bounded() -> None:
    """A reader who is slow, or has left, lets no more be made than is read ahead."""
    made, left = [], threading.Event()

    def items() -> Generator[int, None, None]:
        try:
            for number in range(100):
                made.append(number)
                yield number
        finally:
            left.set()

    ahead = read_ahead(items(), 3)
    assert made == []
    assert next(ahead) == 0
    wait_until(lambda: len(made) >= 5)
    assert not left.wait(0.05)
    assert len(made) == 5
    ahead.close()
    assert left.wait(20)
    assert len(made) == 5


def test_reading_ahead_raises_what_making_raises() -> None:
    def items() -> Generator[int, None, None]:
        yield 1
        raise OutOfRange("no more")

    ahead = read_ahead(items(), AHEAD)
    assert next(ahead) == 1
    with pytest.raises(OutOfRange, match="no more"):
        next(ahead)


@pytest.fixture(scope="module")
def weights(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_weights(tmp_path_factory.mktemp("weights"))


def test_an_edge_refuses_the_weights_of_another_cluster(weights: Path, tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match=r"mmtalker.* are not the cluster's; give both the same weights"):
        edge_engine(Asker(FakeReplicas([a_worker()]), IMPATIENT), weights, tmp_path)


def test_a_generator_is_fetched_once(tmp_path: Path) -> None:
    networks = tiny()
    file = tmp_path / "made.onnx"
    file.write_bytes(b"onnx")
    replicas = FakeReplicas([a_worker()])
    replicas.workers[0].networks = _Generating(**vars(networks))
    _Generating.file = file
    engine = cluster_engine(replicas, tmp_path / "cache")
    for _ in "12":
        assert engine.generator("textalker-motion").read_bytes() == b"onnx"
    assert [type(call).__name__ for call in replicas.calls].count("Generator") == 1


class _Generating(type(tiny())):  # type: ignore[misc]
    file: Path

    def generator(self, checkpoint: str) -> Path:
        return self.file


def test_textures_come_whole(tmp_path: Path) -> None:
    replicas = FakeReplicas([a_worker()], faults=cycle(["", "after"]))
    clip = cluster_engine(replicas, tmp_path).animate(speech(1), AnimateOptions("textalker", texture=WRINKLE.size))
    assert all(frame.wrinkles.dtype == np.float16 for frame in clip.frames)
    assert io.BytesIO(clip.mesh.base_color_png or b"").getvalue()


def test_what_is_deployed_is_what_edges_ask_for() -> None:
    """By the same names, and on Kubernetes the same as elsewhere."""
    folder = Path(__file__).parents[1] / "deploy" / "ray"
    plain = yaml.safe_load((folder / "serve.yaml").read_text(encoding="utf-8"))["applications"]
    objects = list(yaml.safe_load_all((folder / "kubernetes.yaml").read_text(encoding="utf-8")))
    (service,) = [each for each in objects if each["kind"] == "RayService"]
    assert yaml.safe_load(service["spec"]["serveConfigV2"])["applications"] == plain
    (application,) = plain
    (deployment,) = application["deployments"]
    assert (application["name"], deployment["name"]) == (APPLICATION, DEPLOYMENT)
    module, _, name = application["import_path"].partition(":")
    tree = ast.parse(Path(folder.parents[1], *module.split(".")).with_suffix(".py").read_text(encoding="utf-8"))
    assert name in {node.name for node in tree.body if isinstance(node, ast.FunctionDef)}
    (options,) = [node for node in tree.body if isinstance(node, ast.ClassDef) and node.name == "ReplicaOptions"]
    known = {node.target.id for node in options.body if isinstance(node, ast.AnnAssign)}
    assert application["args"].keys() <= known - {"model_config"}
    environment = {entry["name"] for each in objects if each["kind"] == "Deployment" for entry in _environment(each)}
    assert {name for name in environment if name.startswith("TALKER_")} <= {
        "TALKER_" + field.upper() for field in Settings.model_fields
    }


def _environment(deployment: dict[str, Any]) -> list[dict[str, Any]]:
    return [entry for each in deployment["spec"]["template"]["spec"]["containers"] for entry in each["env"]]
