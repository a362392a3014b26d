"""A replica without its network: calls in, answers out, as bytes."""

import hashlib
import json
import logging
from collections import OrderedDict
from dataclasses import asdict
from importlib.metadata import version
from threading import Lock
from typing import Any

from models.atlas import Anchors
from models.cluster.calls import Call, Facts
from models.cluster.packing import pack, unpack
from models.engine import Networks, Query, Sampling
from models.errors import TalkerError

log = logging.getLogger(__name__)

QUERIES = 16
"""Heads at a resolution that are kept in memory."""
FAILURES = 3
"""Calls in a row that fail for no fault of theirs, after which a replica takes itself for broken."""


class Worker:
    """Answers calls by networks, in as many threads as call: steps that coincide are batched below."""

    def __init__(self, networks: Networks, sampling: Sampling, device: str, providers: list[str]) -> None:
        self.networks = networks
        self.facts = Facts(
            weights=_name(networks, sampling),
            checkpoints=dict(networks.checkpoints),
            device=device,
            providers=providers,
            log_density=networks.log_density,
            spaces=dict(networks.spaces),
            skin_texels=networks.skin_texels,
            upsampler=networks.upsampler.config,
        )
        self._queries, self._guard = OrderedDict[str, Query](), Lock()
        self._failures = 0

    @property
    def broken(self) -> bool:
        """Whether nothing works any more, as after an error that a device does not recover from."""
        return self._failures >= FAILURES

    def answer(self, body: bytes) -> bytes:
        """The answer to a packed call, or the TalkerError that refuses it, packed. Raises whatever else goes wrong."""
        call: Call[Any] = unpack(body)
        try:
            outcome = pack(call.answer(self))
        except TalkerError as error:
            outcome = pack(error)
        except Exception:
            self._failures += 1
            log.exception("a call failed: %s", type(call).__name__)
            raise
        self._failures = 0
        return outcome

    def query(self, key: str, anchors: Anchors) -> Query:
        """See `models.cluster.calls.Host.query`. The one not used for longest is forgotten first."""
        with self._guard:
            if key in self._queries:
                self._queries.move_to_end(key)
                return self._queries[key]
        query = self.networks.query(anchors)
        with self._guard:
            self._queries[key] = query
            while len(self._queries) > QUERIES:
                self._queries.popitem(last=False)
        return query


def _name(networks: Networks, sampling: Sampling) -> str:
    parts = [version("talker"), asdict(sampling), dict(networks.checkpoints)]
    return hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()[:16]
