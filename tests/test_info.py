"""GET /info, and the pages that explain the service."""

import re

from fastapi.testclient import TestClient

from service.encoders import ENCODERS
from service.settings import Settings


def test_info_tells_what_runs_and_what_it_refuses(client: TestClient, settings: Settings) -> None:
    info = client.get("/info").json()
    assert info["version"]
    assert (info["engines"], info["device"], info["providers"]) == (
        ["mmtalker", "textalker"],
        "cpu",
        ["CPUExecutionProvider"],
    )
    assert info["checkpoints"] == {"mmtalker": "0" * 64}
    assert info["limits"] == {
        name: getattr(settings, name) for name in Settings.model_fields if name.startswith("max_")
    }


def test_every_format_that_works_is_listed(client: TestClient) -> None:
    formats = {each.pop("name"): each for each in client.get("/info").json()["formats"]}
    assert formats == {
        name: {
            "media_type": encoder.media_type,
            "extension": encoder.extension,
            "needs_whole_clip": encoder.needs_whole_clip,
        }
        for name, encoder in ENCODERS.items()
    }


def test_the_page_of_the_contract_loads_nothing_from_outside(client: TestClient) -> None:
    """Every address on it is the service's own, and answers."""
    page = client.get("/docs").text
    addresses = re.findall(r"""(?:src|href)=["']([^"']+)|url: ["']([^"']+)""", page)
    paths = {source or url for source, url in addresses}
    assert "/openapi.json" in paths
    assert any(path.endswith(".js") for path in paths)
    for path in paths:
        assert path.startswith("/")
        assert client.get(path).status_code == 200


def test_the_contract_is_served_as_it_is_written(client: TestClient) -> None:
    assert client.get("/openapi.json").json() == client.app.openapi()  # type: ignore[attr-defined]
