"""An engine on the edge of a Ray cluster: `TALKER_ENGINE=ray://HOST:PORT`, or `ray://auto`.

The process is a driver of the cluster, and needs a raylet on its own machine: `ray start --address=HOST:PORT
--num-cpus=0`. It ends when that does, and so there should be two edges or more.
"""

import asyncio
import logging
import os
from concurrent.futures import CancelledError
from pathlib import Path
from threading import Event, Thread

from models.cluster.asker import Asker, NotTaken, ReplicaLost
from models.cluster.networks import ClusterNetworks
from models.engine import ENGINES, LocalEngine
from models.errors import CheckpointError, EngineLost

log = logging.getLogger(__name__)

SCHEME, APPLICATION, DEPLOYMENT = "ray://", "talker", "TalkerEngine"
START_S = 1.5
"""A call that no replica has begun after so long is sent anew: the one that it went to may be cut off. It counts as no
loss, and whoever waits loses only the place in a queue."""
SILENCE_S = 2.0
"""A replica that has begun, and is silent for so long, is lost."""
POLL_S = 1.0
CLIPS = 2
"""Clips at once that keep a replica busy: while one is on its way, the other is computed."""


class RayReplicas:
    """The replicas of `models.cluster.serving` on a Ray cluster. See `models.cluster.asker.Replicas`."""

    def __init__(self, address: str) -> None:
        """address: of the cluster's head, or `auto`. EngineLost when nobody is there."""
        # Edges ask replicas for their queues before each window, not every ten seconds. One that is cut off was seen to
        # get windows all the same, for some seconds.
        os.environ.setdefault("RAY_SERVE_QUEUE_LENGTH_CACHE_TIMEOUT_S", "0")
        os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
        import ray
        from ray import serve
        from ray.exceptions import RayError
        from ray.serve.exceptions import RayServeException

        self._failures = (RayError, RayServeException, TimeoutError, CancelledError, asyncio.CancelledError)
        try:
            ray.init(address, log_to_driver=False, logging_level=logging.WARNING, configure_logging=False)
            self._status = serve.status
            handle = serve.get_deployment_handle(DEPLOYMENT, APPLICATION)
            self._answer = handle.options(stream=True).answer
        except (ConnectionError, RuntimeError, ValueError, *self._failures) as error:
            raise EngineLost(
                f"no Talker on a Ray cluster at {address} ({error}); wanted one that this machine has joined: ray "
                "start, then serve deploy",
                retry_after_s=START_S,
            ) from error
        self._replicas, self._closed = 0, Event()
        self._loop = asyncio.new_event_loop()
        Thread(target=self._loop.run_forever, name="talker-cluster", daemon=True).start()
        Thread(target=self._poll, name="talker-replicas", daemon=True).start()

    @property
    def capacity(self) -> int:
        """See `Replicas.capacity`."""
        return CLIPS * self._replicas

    def send(self, body: bytes, deadline_s: float) -> bytes:
        """See `Replicas.send`."""
        if self._closed.is_set():
            raise NotTaken("the edge stops")
        return asyncio.run_coroutine_threadsafe(self._send(body, deadline_s), self._loop).result()

    def close(self) -> None:
        """See `Replicas.close`."""
        self._closed.set()
        self._loop.call_soon_threadsafe(self._loop.stop)

    async def _send(self, body: bytes, deadline_s: float) -> bytes:
        beats = self._answer.remote(body)
        try:
            try:
                await asyncio.wait_for(anext(beats), START_S)
            except self._failures as error:
                raise NotTaken(_named(error)) from error
            try:
                async with asyncio.timeout(deadline_s):
                    while not (answer := await asyncio.wait_for(anext(beats), SILENCE_S)):
                        pass
                    return answer
            except self._failures as error:
                raise ReplicaLost(_named(error)) from error
        except (NotTaken, ReplicaLost):
            self._loop.run_in_executor(None, beats.cancel)
            raise

    def _poll(self) -> None:
        """Count replicas. While nobody tells, the last number stands: windows may flow all the same."""
        while not self._closed.wait(POLL_S):
            try:
                application = self._status().applications.get(APPLICATION)
                deployment = application and application.deployments.get(DEPLOYMENT)
                self._replicas = deployment.replica_states.get("RUNNING", 0) if deployment else 0
            except self._failures as error:
                log.warning("the cluster does not tell its replicas (%s)", _named(error))


def _named(error: BaseException) -> str:
    return f"{type(error).__name__}: {str(error)[:200]}" if str(error) else type(error).__name__


def open_cluster(
    address: str, weights: Path, cache: Path, *, styles: Path | None = None, templates: Path | None = None
) -> LocalEngine:
    """The engine over a cluster's networks; of the folder of weights it reads the head and the styles.

    CheckpointError where these weights are not the cluster's, EngineLost where there is none.
    """
    return cluster_engine(Asker(RayReplicas(address.removeprefix(SCHEME))), weights, cache, styles, templates)


def cluster_engine(
    asker: Asker, folder: Path, cache: Path, styles: Path | None = None, templates: Path | None = None
) -> LocalEngine:
    """The engine over whoever is asked. CheckpointError where the weights are not theirs."""
    from models.checkpoint import pinned_file, read_manifest
    from models.pivots import StyleBook, load_styles
    from models.skin.cabinet import Skins
    from models.template import default_template, load_head
    from models.templates import TemplateBook
    from models.uploads import Uploads

    head = load_head(pinned_file(folder, "head")[0])
    networks = ClusterNetworks(asker, head, Skins(head, cache), cache)
    own = {name: entry["sha256"] for name, entry in read_manifest(folder).items()}
    if apart := sorted(name for name, digest in networks.checkpoints.items() if own.get(name) != digest):
        raise CheckpointError(f"{', '.join(apart)} in {folder} are not the cluster's; give both the same weights")
    shipped = load_styles(pinned_file(folder, "styles")[0], networks.autoencoders)
    uploads = Uploads(head, cache / "registrations", networks.registration)
    return LocalEngine(
        networks,
        StyleBook(shipped, styles, networks.autoencoders),
        {
            "engines": list(ENGINES),
            "checkpoints": dict(networks.checkpoints),
            "device": networks.facts.device,
            "providers": networks.facts.providers,
        },
        templates=TemplateBook([default_template(head)], templates, uploads.origin),
        uploads=uploads,
    )
