"""`talker doctor`: whether this installation can do its work, and what is in its way."""

import argparse
import json
from collections import Counter
from dataclasses import asdict

MARKS = {"ok": "ok  ", "warn": "warn", "fail": "FAIL"}


def add_parser(commands: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    """Add the command."""
    parser = commands.add_parser(
        "doctor",
        help="check the installation",
        description="Check the installation, from Python to a second of animation, and say what to do about what is "
        "wrong. The exit code is 1 where something fails; warnings leave it 0.",
        allow_abbrev=False,
    )
    parser.add_argument("--json", action="store_true", help="print the findings as JSON")
    parser.set_defaults(run=doctor)


def doctor(options: argparse.Namespace) -> int:
    """Print a line a finding, as it is found; returns the exit code."""
    from service.cli.checkup import Finding, examine

    findings: list[Finding] = []
    for finding in examine():
        findings.append(finding)
        if not options.json:
            print(f"{MARKS[finding.state]}  {finding.name:13}{finding.text}", flush=True)
    counts = Counter(finding.state for finding in findings)
    if options.json:
        print(json.dumps([asdict(finding) for finding in findings], indent=2))
    else:
        print(f"{counts['ok']} ok, {counts['warn']} to look at, {counts['fail']} failed")
    return 1 if counts["fail"] else 0
