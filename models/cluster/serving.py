"""Replicas by Ray Serve: `serve run models.cluster.serving:application`, or the configuration in `deploy/ray`.

Each has a device, the weights and a `Worker`, whose threads' steps are batched below it. Nothing here is an HTTP
ingress: edges are, and call these by handles.
"""

import asyncio
from collections.abc import AsyncGenerator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ConfigDict
from ray import serve

from models.cluster.edge import DEPLOYMENT
from models.cluster.worker import Worker
from models.engine import DEFAULT_SAMPLING, DEFAULT_WEIGHTS, Sampling, open_networks
from models.runtime import open_runtime

ONGOING = 8
"""Calls that a replica answers at once; further ones wait for another replica, or at the edge."""
BEAT_S = 0.5
"""A replica that works says so this often. Edges take one that is silent for lost, long before a deadline."""


class ReplicaOptions(BaseModel):
    """The `args` of the application."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    weights: Path = DEFAULT_WEIGHTS
    cache: Path = Path.home() / ".cache" / "talker"
    device: str = "auto"
    threads: int = 0
    sampler_steps: int = DEFAULT_SAMPLING.steps


@serve.deployment(
    name=DEPLOYMENT,
    max_ongoing_requests=ONGOING,
    health_check_period_s=2,
    health_check_timeout_s=10,
    graceful_shutdown_timeout_s=30,
    logging_config={"enable_access_log": False},
)
class TalkerEngine:
    """One device."""

    def __init__(self, options: ReplicaOptions) -> None:
        runtime = open_runtime(options.device, options.cache, options.threads)
        sampling = Sampling(steps=options.sampler_steps)
        networks = open_networks(options.weights, runtime, sampling)
        self._worker = Worker(networks, sampling, str(runtime.device), runtime.providers)
        self._threads = ThreadPoolExecutor(ONGOING)

    async def answer(self, body: bytes) -> AsyncGenerator[bytes, None]:
        """Empty as soon as it begins, and while it works; then `Worker.answer`."""
        work = asyncio.get_running_loop().run_in_executor(self._threads, self._worker.answer, body)
        yield b""
        while not (await asyncio.wait([work], timeout=BEAT_S))[0]:
            yield b""
        yield work.result()

    def check_health(self) -> None:
        """Serve asks, and puts another in place of a replica that raises."""
        if self._worker.broken:
            raise RuntimeError("call after call fails; wanted a device that works: start another replica")


def application(options: ReplicaOptions) -> serve.Application:
    """What Serve deploys; `options` are the `args` of its configuration."""
    deployment: Any = TalkerEngine  # without Ray its decorator has no type
    return deployment.bind(options)
