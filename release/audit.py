"""`tests/run audit`: whether an advisory is known for what the program runs with, by pip-audit.

An advisory service that is out of reach, or that a mirror stands in for and that knows nothing, is a
reason why nothing was found out: neither a pass nor a failure.
"""

from __future__ import annotations

import json
import re
import subprocess
import sys
import tempfile
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from release.parts import Part

SERVICES: Sequence[Sequence[str]] = (
    ("--vulnerability-service", "pypi"),
    ("--vulnerability-service", "osv"),
)  #: asked one after the other, until one answers for every part
ANSWER_S = 15  # for one request
ALL_S = 180
_NETWORK = re.compile(
    r"connect|timed? ?out|requests\.exceptions|resolve|HTTPError|ServiceError", re.IGNORECASE
)


@dataclass(frozen=True, slots=True)
class Audit:
    """What came of it."""

    findings: tuple[str, ...] = ()  #: one line an advisory
    unknown: str = ""  #: why it was not, or not for all parts, found out

    def __str__(self) -> str:
        return "\n".join(self.findings) or self.unknown or "no advisory is known"


def audit(parts: Iterable[Part], services: Sequence[Sequence[str]] = SERVICES) -> Audit:
    """Asks for the advisories of libraries.

    Args:
        parts: of PyPI.
        services: options of pip-audit that name a service.

    Raises:
        RuntimeError: pip-audit failed for another reason than the network.
    """
    pinned = "".join(f"{part.name}=={part.version}\n" for part in parts)
    reasons = []
    for service in services:
        found = _ask(pinned, service)
        if found.findings or not found.unknown:
            return found
        reasons.append(f"{service[-1]}: {found.unknown}")
    return Audit(unknown="no advisory service answers: " + "; ".join(reasons))


def _ask(pinned: str, service: Sequence[str]) -> Audit:
    with tempfile.TemporaryDirectory() as folder:
        listed, answer = Path(folder, "requirements.txt"), Path(folder, "answer.json")
        listed.write_text(pinned, encoding="utf-8")
        argv = [
            sys.executable, "-m", "pip_audit", "--requirement", str(listed), "--no-deps", "--disable-pip",
            "--format", "json", "--output", str(answer), "--progress-spinner", "off",
            "--timeout", str(ANSWER_S), "--cache-dir", str(Path(folder, "cache")), *service,
        ]  # fmt: skip
        try:
            done = subprocess.run(
                argv, capture_output=True, text=True, check=False, timeout=ALL_S,
                stdin=subprocess.DEVNULL,
            )  # fmt: skip
        except subprocess.TimeoutExpired:
            return Audit(unknown=f"no answer within {ALL_S} s")
        if answer.is_file() and (text := answer.read_text(encoding="utf-8").strip()):
            return _read(text)
    last = (done.stderr.strip().splitlines() or [f"exit status {done.returncode}"])[-1]
    if not _NETWORK.search(last):
        raise RuntimeError(f"pip-audit failed: {last}")
    return Audit(unknown=last[:300])


def _read(text: str) -> Audit:
    parts = json.loads(text)["dependencies"]
    findings = [
        f"{part['name']} {part['version']}: {advisory['id']}, mended in "
        f"{', '.join(advisory['fix_versions']) or 'no version yet'}"
        for part in parts
        for advisory in part.get("vulns", ())
    ]
    unknown = [part["name"] for part in parts if "skip_reason" in part]
    reason = f"it does not know {', '.join(unknown)}" if unknown else ""
    return Audit(tuple(findings), reason)
