"""docs/jobs.md, executed."""

import re
import shutil
import signal
import subprocess
from pathlib import Path

import pytest
from test_job_faults import ROOT, process

PAGE = (ROOT / "docs" / "jobs.md").read_text(encoding="utf-8")


@pytest.mark.skipif(not shutil.which("curl"), reason="needs curl")
def test_its_requests_are_answered(tmp_path: Path) -> None:
    (commands,) = re.findall(r"^```sh\n(.*?)^```$", PAGE, re.MULTILINE | re.DOTALL)
    with process(tmp_path / "jobs") as server:
        commands = commands.replace("http://127.0.0.1:8000", str(server.client.base_url)).replace(
            "-o ", f"-o {tmp_path}/"
        )
        output = subprocess.run(["bash", "-euc", commands], cwd=ROOT, check=True, capture_output=True, text=True).stdout
        assert server.client.get("/jobs").json() == []
        server.end(signal.SIGTERM)
    assert "event: done" in output
    assert (tmp_path / "head.frames").read_bytes() == (tmp_path / "part.frames").read_bytes()
