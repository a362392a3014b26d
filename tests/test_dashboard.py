"""What the dashboard and the alerts ask Prometheus for is what the service tells."""

import json
import re
from pathlib import Path

import yaml

OBSERVABILITY = Path(__file__).parent.parent / "docker" / "observability"
NAME = re.compile(r"\b(?:talker|process)_[a-z_]+")
OF_ENGINES = "talker_engine_"
"""What an engine tells of itself, which depends on the engine."""


def test_every_metric_that_is_shown_is_told(client):
    board = json.loads((OBSERVABILITY / "grafana" / "dashboards" / "talker.json").read_text())
    alerts = yaml.safe_load((OBSERVABILITY / "alerts.yaml").read_text())
    queries = [target["expr"] for panel in board["panels"] for target in panel["targets"]]
    queries += [rule["expr"] for group in alerts["groups"] for rule in group["rules"]]
    told = set()
    for name, kind in re.findall(r"^# TYPE (\S+) (\S+)$", client.get("/metrics").text, re.MULTILINE):
        told |= {f"{name}_{part}" for part in ("bucket", "sum", "count")} if kind == "histogram" else {name}
    shown = {name for query in queries for name in NAME.findall(query)}
    assert len(shown) > 10
    assert sorted(name for name in shown - told if not name.startswith(OF_ENGINES)) == []
