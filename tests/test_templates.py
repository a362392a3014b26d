"""GET /templates."""

from conftest import FakeEngine
from fastapi.testclient import TestClient

CARD = {
    "id": "default",
    "vertices": 49,
    "faces": 72,
    "licence": "CC0-1.0",
    "regions": {"lips": 9, "eyes": 4, "upper_face": 14},
}


def test_every_template_is_listed(client: TestClient) -> None:
    assert client.get("/templates").json() == [CARD]


def test_one_template_is_described(client: TestClient) -> None:
    assert client.get("/templates/default").json() == CARD


def test_an_unknown_template_is_404_with_the_known_ones(client: TestClient) -> None:
    for path in ("/templates/nobody", "/templates/nobody/mesh.glb", "/templates/..%2f..%2fetc"):
        response = client.get(path)
        problem = response.json()
        assert response.status_code == 404, path
        if "known" in problem:
            assert (problem["code"], problem["field"], problem["known"]) == (
                "unknown_template",
                "template",
                ["default"],
            )


def test_the_mesh_comes_as_glb(client: TestClient, engine: FakeEngine) -> None:
    response = client.get("/templates/default/mesh.glb")
    assert response.headers["content-type"] == "model/gltf-binary"
    assert response.content[:4] == b"glTF"
