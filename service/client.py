"""Who asks: the name of the API key, or where keys are off the address that the request came from."""

from collections.abc import Mapping
from typing import Any


def client_of(scope: Mapping[str, Any]) -> str:
    """The client of an ASGI scope, as quotas and fairness tell clients apart."""
    peer = scope.get("client")
    return scope.get("state", {}).get("client") or (peer[0] if peer else "local")
