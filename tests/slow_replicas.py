"""Deploys replicas that take their time: `python slow_replicas.py ADDRESS WEIGHTS CACHE COUNT`, on a cluster; and with
the address alone, exits with the number of those that run.
"""

import sys
import time
from pathlib import Path
from typing import Any

import ray
from ray import serve

from models.cluster.serving import ReplicaOptions, TalkerEngine

PAUSE_S = 0.25


class SlowEngine(TalkerEngine.func_or_class):
    def __init__(self, options: Any) -> None:
        super().__init__(options)
        answer = self._worker.answer

        def slowly(body: bytes) -> bytes:
            time.sleep(PAUSE_S)
            return answer(body)

        self._worker.answer = slowly


def count(address: str) -> int:
    ray.init(address)
    return serve.status().applications["talker"].deployments["TalkerEngine"].replica_states.get("RUNNING", 0)


def deploy(address: str, weights: str, cache: str, count: str) -> None:
    ray.init(address)
    serve.start(proxy_location="Disabled")
    options = ReplicaOptions(weights=Path(weights), cache=Path(cache), device="cpu", threads=1)
    replicas = TalkerEngine.options(
        func_or_class=SlowEngine, num_replicas=int(count), ray_actor_options={"num_cpus": 1}
    )
    serve.run(replicas.bind(options), name="talker", route_prefix=None)


if __name__ == "__main__":
    if len(sys.argv) == 2:
        raise SystemExit(count(sys.argv[1]))
    deploy(*sys.argv[1:])
