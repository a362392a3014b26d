"""`/docs` and `/openapi.json`: the contract, to read and to try, without a byte from outside."""

import re
from base64 import b64encode
from hashlib import sha256
from typing import Any

from fastapi import APIRouter, FastAPI, Request
from fastapi.openapi.docs import get_swagger_ui_html
from fastapi.responses import HTMLResponse
from fastapi.staticfiles import StaticFiles

ASSETS = "/docs/assets"

SCRIPT = re.compile(rb"<script>(.*?)</script>", re.DOTALL)

POLICY = "; ".join(
    (
        "default-src 'none'",
        "style-src 'self'",
        "img-src 'self' data: blob:",
        "connect-src 'self'",
        "base-uri 'none'",
        "form-action 'none'",
        "frame-ancestors 'none'",
    )
)
HEADERS = {"Permissions-Policy": "microphone=(), camera=(), geolocation=()", "Referrer-Policy": "no-referrer"}

router = APIRouter(include_in_schema=False)


@router.get("/openapi.json")
async def openapi(request: Request) -> dict[str, Any]:
    """The contract, as openapi.yaml has it."""
    app: FastAPI = request.app
    return app.openapi()


@router.get("/docs")
async def docs(request: Request) -> HTMLResponse:
    """Swagger UI, which the package fastapi-swagger ships."""
    root = request.scope.get("root_path", "")
    page = get_swagger_ui_html(
        openapi_url=f"{root}/openapi.json",
        title="Talker",
        swagger_js_url=f"{root}{ASSETS}/swagger-ui-bundle.js",
        swagger_css_url=f"{root}{ASSETS}/swagger-ui.css",
        swagger_favicon_url=f"{root}{ASSETS}/favicon-32x32.png",
    )
    page.headers.update(HEADERS | {"Content-Security-Policy": f"{POLICY}; script-src {_scripts(bytes(page.body))}"})
    return page


def _scripts(page: bytes) -> str:
    """What may run: files of ours, and the lines that start Swagger UI, by their hash."""
    digests = (b64encode(sha256(script).digest()).decode() for script in SCRIPT.findall(page))
    return " ".join(["'self'", *(f"'sha256-{digest}'" for digest in digests)])


def install_docs(app: FastAPI) -> None:
    """Add the pages above, and the files that they load."""
    app.include_router(router)
    app.mount(ASSETS, StaticFiles(packages=[("fastapi_swagger", "resources")]))
