"""The page at `/`: posts a clip, and plays what comes back. Nothing on it is loaded from outside.

`make page` builds `built/`, which is shipped, from `source/`, which is not.
"""

from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path

from fastapi import FastAPI, Request, Response

from service.entity import unless_held

BUILT = Path(__file__).parent / "built"
PAGE = "index.html"
TYPES = {
    ".css": "text/css; charset=utf-8",
    ".html": "text/html; charset=utf-8",
    ".js": "text/javascript; charset=utf-8",
    ".svg": "image/svg+xml",
}

POLICY = "; ".join(
    (
        "default-src 'none'",
        "script-src 'self'",
        "style-src 'self'",
        "img-src 'self' blob:",
        "connect-src 'self' blob:",  # textures come out of a GLB as blobs, and are fetched
        "media-src blob:",
        "base-uri 'none'",
        "form-action 'none'",
        "frame-ancestors 'none'",
        "require-trusted-types-for 'script'",
    )
)
HEADERS = {
    "Content-Security-Policy": POLICY,
    "Permissions-Policy": "microphone=(self), camera=(), geolocation=()",
    "Referrer-Policy": "no-referrer",
}


@dataclass(frozen=True)
class Asset:
    """A file of the build, its media type, and the hash of its content as an entity tag."""

    content: bytes
    media_type: str
    etag: str

    @classmethod
    def read(cls, path: Path) -> "Asset":
        """Read a file whose suffix is in TYPES."""
        content = path.read_bytes()
        return cls(content, TYPES[path.suffix], f'"{sha256(content).hexdigest()[:32]}"')

    async def response(self, request: Request) -> Response:
        """The file, or 304 where the client has it."""
        return unless_held(request, self.content, self.media_type, self.etag, HEADERS)


def install_studio(app: FastAPI) -> None:
    """Add the page and its files, which are read once. A path leads to one of them by name, never to the disk."""
    for path in sorted(BUILT.iterdir()):
        asset = Asset.read(path)
        address = "/" if path.name == PAGE else f"/studio/{path.name}"
        app.add_api_route(address, asset.response, include_in_schema=False)
