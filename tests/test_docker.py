"""The files that deploy the service: what holds of them without building or running anything."""

import importlib
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from service.settings import Settings

DOCKER = Path(__file__).parent.parent / "docker"
DOCKERFILE = (DOCKER / "Dockerfile").read_text()
IMAGE = dict(re.findall(r"\b(TALKER_[A-Z_]+)=(\S+)", DOCKERFILE.partition("AS service")[2].partition("\nFROM")[0]))
LAYERS = ("compose.yaml", "compose.gpu.yaml", "compose.observability.yaml")
"""The image's settings; the compose files, and what goes on top of what."""


def loaded(path: str) -> dict:
    return yaml.safe_load((DOCKER / path).read_text())


@pytest.fixture(scope="module")
def container() -> dict:
    """What runs on Kubernetes."""
    (container,) = loaded("kubernetes/base/deployment.yaml")["spec"]["template"]["spec"]["containers"]
    return container


@pytest.mark.parametrize("path", [path.relative_to(DOCKER) for path in DOCKER.rglob("*.yaml")], ids=str)
def test_each_file_is_yaml(path):
    assert isinstance(loaded(str(path)), dict)


def test_the_image_sets_what_there_is_to_set(monkeypatch):
    for name, value in IMAGE.items():
        monkeypatch.setenv(name, value)
    settings = Settings()
    assert (settings.host, settings.port, settings.drain_s) == ("0.0.0.0", 8000, 60)


def test_all_that_users_make_lies_in_the_volume():
    folders = {name for name, field in Settings.model_fields.items() if field.annotation is Path and name != "weights"}
    assert {f"TALKER_{name.upper()}" for name in folders} == {
        name for name in IMAGE if IMAGE[name].startswith("/data/")
    }


@pytest.mark.parametrize("variant", ["cpu", "cuda"])
def test_both_images_are_built_alike(variant):
    """They differ by torch, by the extra and by what NVIDIA's runtime reads."""
    other = {"cpu": "cuda", "cuda": "cpu"}[variant]
    stages = re.findall(rf"^FROM \S+ AS {variant}\b.*?(?=^FROM|\Z)", DOCKERFILE, re.MULTILINE | re.DOTALL)
    assert len(stages) == 4
    assert not any(f"{other}-" in stage for stage in stages)
    assert len(re.findall(rf"COPY --from={variant}-", stages[-1])) == 3


def test_each_container_is_given_longer_than_it_drains(container):
    drain_s = int(IMAGE["TALKER_DRAIN_S"])
    assert int(loaded("compose.yaml")["services"]["talker"]["stop_grace_period"].removesuffix("s")) > drain_s
    pod = loaded("kubernetes/base/deployment.yaml")["spec"]["template"]["spec"]
    assert pod["terminationGracePeriodSeconds"] > drain_s + container["lifecycle"]["preStop"]["sleep"]["seconds"]


@pytest.mark.parametrize("path", LAYERS)
def test_composed_services_are_confined_and_on_loopback_alone(path):
    for name, service in loaded(path)["services"].items():
        assert all(port.startswith("127.0.0.1:") for port in service.get("ports", [])), name
        if path == "compose.gpu.yaml":  # adds to services that are
            continue
        assert service["read_only"] is True, name
        assert service["cap_drop"] == ["ALL"], name
        assert "no-new-privileges:true" in service["security_opt"], name


def test_a_pod_is_confined(container):
    pod = loaded("kubernetes/base/deployment.yaml")["spec"]["template"]["spec"]
    assert pod["securityContext"]["runAsUser"] == 10001 == int(re.search(r"^USER (\d+)", DOCKERFILE, re.MULTILINE)[1])
    assert pod["securityContext"]["runAsNonRoot"] is True
    assert container["securityContext"] == {
        "allowPrivilegeEscalation": False,
        "readOnlyRootFilesystem": True,
        "capabilities": {"drop": ["ALL"]},
    }


def test_kubernetes_sets_no_variables_of_its_own():
    """A service named talker would set TALKER_PORT=tcp://…, which stops the service."""
    assert loaded("kubernetes/base/deployment.yaml")["spec"]["template"]["spec"]["enableServiceLinks"] is False


def test_the_context_has_no_secrets_and_no_history():
    kept = re.findall(r"^!(.*)$", (DOCKER.parent / ".dockerignore").read_text(), re.MULTILINE)
    copied = re.findall(r"^COPY (?!--from)(.*) \S+$", DOCKERFILE, re.MULTILINE)
    assert sorted(kept) == sorted({name for line in copied for name in line.split()})


@pytest.mark.parametrize("broken", ["USER", "HEALTHCHECK", "DRAIN"])
def test_the_check_finds_the_lines_that_it_breaks(broken, monkeypatch, tmp_path):
    monkeypatch.syspath_prepend(str(DOCKER))
    check = importlib.import_module("check")
    assert check._dockerfile(tmp_path, broken).read_text() != DOCKERFILE


def test_where_nothing_builds_images_the_check_is_skipped(tmp_path):
    result = subprocess.run(
        [sys.executable, DOCKER / "check.py"], env={"PATH": str(tmp_path)}, capture_output=True, text=True
    )
    assert result.returncode == 77
    assert "no docker daemon answers" in result.stderr


@pytest.mark.skipif(not shutil.which("hadolint"), reason="hadolint is not installed")
def test_hadolint_has_nothing_to_say():
    subprocess.run(["hadolint", DOCKER / "Dockerfile"], check=True)


@pytest.mark.skipif(not shutil.which("kubectl"), reason="kubectl is not installed")
@pytest.mark.parametrize("variant", ["base", "gpu"])
def test_the_manifests_can_be_put_together(variant):
    command = ["kubectl", "kustomize", DOCKER / "kubernetes" / variant]
    kinds = {entry["kind"] for entry in yaml.safe_load_all(subprocess.check_output(command, text=True))}
    assert kinds == {"Deployment", "Service", "PersistentVolumeClaim"}
