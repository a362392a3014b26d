"""The application: its routes, its middleware and the life of its engine."""

import asyncio
import logging
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager, suppress
from functools import partial
from importlib.metadata import version

from anyio import to_thread
from fastapi import Depends, FastAPI
from starlette.requests import HTTPConnection

from models.engine import Engine
from models.errors import SHOWN, MalformedInput, TalkerError
from service import animate, codec, health, info, styles, templates, upsample
from service.access import Access
from service.authorization import Authorization
from service.contract import install_contract
from service.docs import install_docs
from service.drain import Gate
from service.head_method import HeadAsGet
from service.jobs import routes as jobs
from service.jobs.worker import Worker
from service.keys import KeyRing
from service.live.route import live
from service.problems import install_problems
from service.request_id import RequestId
from service.runtime import Runtime, open_engine
from service.settings import Settings
from service.sniffing import NoSniffing
from service.studio import install_studio
from service.traces import TELEMETRY

log = logging.getLogger(__name__)

DESCRIPTION = """\
Speech and a head go in; a talking head comes out.

Lengths are metres, times are seconds, +Y is up and +Z forward. A refusal is an RFC 9457 problem with a stable `code`.
Unknown fields and query parameters are refused, not ignored.

`WS /live` animates sound while it is spoken; docs/live.md tells what goes over the wire, which OpenAPI cannot.
"""


def create_app(settings: Settings | None = None, engine: Engine | None = None) -> FastAPI:
    """The service; settings come from the environment and the engine from the weights, unless they are given."""
    app = FastAPI(
        title="Talker",
        version=version("talker"),
        description=DESCRIPTION,
        license_info={"name": "Apache-2.0", "identifier": "Apache-2.0"},
        dependencies=[Depends(_refuse_query)],
        generate_unique_id_function=lambda route: route.name,
        lifespan=partial(_lifespan, engine=engine),
        openapi_url=None,  # service.docs serves the contract and the page, offline
        redirect_slashes=False,
        telemetry=TELEMETRY,
    )
    app.state.runtime = Runtime(settings or Settings())
    _add_middleware(app, app.state.runtime)
    app.state.runtime.metrics.watch_by("jobs", "Jobs, by state", "state", partial(_jobs, app))
    install_problems(app)
    for module in (animate, jobs, upsample, codec, styles, templates, info, health):
        app.include_router(module.router)
    app.router.add_websocket_route("/live", live)
    install_docs(app)
    install_studio(app)
    install_contract(app)
    return app


def _add_middleware(app: FastAPI, runtime: Runtime) -> None:
    """From the inside out: who has no key is not told more than that, and is in the log."""
    app.add_middleware(Gate, drain=runtime.drain)
    if runtime.settings.keys is not None:
        app.add_middleware(Authorization, ring=KeyRing(runtime.settings.keys))
    app.add_middleware(Access, metrics=runtime.metrics)
    app.add_middleware(HeadAsGet)
    app.add_middleware(NoSniffing)
    app.add_middleware(RequestId)


def _jobs(app: FastAPI) -> Mapping[str, float]:
    worker: Worker | None = getattr(app.state, "worker", None)
    return {} if worker is None else worker.desk.counts()


@asynccontextmanager
async def _lifespan(app: FastAPI, *, engine: Engine | None) -> AsyncIterator[None]:
    """Load the engine beside the server, so that `/health/live` answers at once; jobs are made from then on."""
    runtime: Runtime = app.state.runtime
    worker = app.state.worker = Worker(runtime)
    await worker.open()
    working = asyncio.create_task(worker.run())
    tasks = [asyncio.create_task(work) for work in (_load(runtime, engine), runtime.follow())]
    yield
    worker.stop()
    await working
    for task in tasks:
        task.cancel()
        with suppress(asyncio.CancelledError):
            await task
    if runtime.isolation is not None:
        runtime.isolation.close()
    if runtime.warm_engine is not None:
        await to_thread.run_sync(runtime.warm_engine.close)


async def _load(runtime: Runtime, engine: Engine | None) -> None:
    try:
        runtime.open(await to_thread.run_sync(_warm_engine, runtime, engine))
    except Exception as error:
        log.error("the engine does not start", exc_info=None if isinstance(error, TalkerError) else error)
        runtime.failure = error


def _warm_engine(runtime: Runtime, engine: Engine | None) -> Engine:
    if runtime.isolation is not None:
        runtime.isolation.warm_up()
    engine = engine or open_engine(runtime.settings)
    engine.warm_up()
    return engine


async def _refuse_query(request: HTTPConnection) -> None:
    """No route takes query parameters."""
    for name in request.query_params:
        raise MalformedInput(f"unknown query parameter {name[:SHOWN]!r}; wanted none: remove it", field=name[:SHOWN])
