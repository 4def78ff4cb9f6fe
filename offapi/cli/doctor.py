"""`offapi doctor`: what works on this machine, and how to fix what does not."""

from __future__ import annotations

from dataclasses import asdict

import click

from offapi.cli.output import Output, options
from offapi.errors import GateFailed

MARKS = {"ok": "ok", "absent": "-", "warning": "warning", "failed": "FAILED"}


@click.command(short_help="Check backends, models, memory, disk and the network guard.")
@options
def command(output: Output) -> None:
    """Check backends, local models, memory, disk and the guard that blocks the network.

    Use it after installing, and whenever a command fails unexpectedly. It changes nothing and says
    how to fix each problem. Exit code 3: something must be fixed first.

    \b
    Examples:
      offapi doctor
      offapi doctor --json
    """
    from offapi import doctor
    from offapi.training import host

    findings = []
    for finding in doctor.examine():
        findings.append(finding)
        output.say(f"{MARKS[finding.status]:>8}  {finding.name}: {finding.detail}")
        if finding.remedy:
            output.say(f"{'':10}{finding.remedy}")
    failed = [finding.name for finding in findings if finding.status == "failed"]
    checks = [asdict(finding) for finding in findings]
    output.result(
        {"ok": not failed, "checks": checks, "versions": host.versions(), "host": host.facts()}
    )
    if failed:
        raise GateFailed(
            f"these checks failed: {', '.join(failed)}.", next_step="See the remedies above."
        )
