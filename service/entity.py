"""Files that clients keep: named by their content, and not sent again to a client that has them."""

from collections.abc import Mapping

from fastapi import Request, Response

KEEP = {"Cache-Control": "no-cache"}
"""The path stays when the content changes, so clients must ask again."""


def unless_held(request: Request, content: bytes, media_type: str, etag: str, headers: Mapping[str, str]) -> Response:
    """The file, or 304 where `If-None-Match` names its entity tag (RFC 9110, section 13.1.2)."""
    fields = KEEP | {"ETag": etag} | dict(headers)
    if is_held(request, etag):
        return Response(status_code=304, headers=fields)
    return Response(content, media_type=media_type, headers=fields)


def is_held(request: Request, etag: str) -> bool:
    """Whether `If-None-Match` names the entity tag."""
    known = [tag.strip().removeprefix("W/") for tag in request.headers.get("if-none-match", "").split(",")]
    return etag in known or known == ["*"]
