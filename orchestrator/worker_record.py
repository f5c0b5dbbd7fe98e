"""What the launcher writes down of a worker, for those who look at it while it runs.

`worker.json` in the ticket's folder, 0600, out of reach of an isolated agent. The agent's own
environment would tell the same, and more: keys. It is not for everybody to read, and not for a
service that has a user namespace of its own to read at all.
"""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path

MAX_BYTES = 65_536
#: of the environment, what tells where an agent keeps its files
KEPT = ("HOME", "CLAUDE_CONFIG_DIR")


@dataclass(frozen=True, slots=True, kw_only=True)
class WorkerRecord:
    """One worker's start."""

    isolation: str  #: workspace or off
    reason: str  #: why it is off, where the configuration would have it otherwise
    network: str  #: full, loopback or none
    environ: Mapping[str, str] = field(default_factory=dict)  #: KEPT alone

    @classmethod
    def read(cls, path: Path) -> WorkerRecord | None:
        """None where there is none, or nothing of it can be understood."""
        try:
            with path.open("rb") as file:
                value = json.loads(file.read(MAX_BYTES))
            environ = {k: str(v) for k, v in value["environ"].items() if k in KEPT}
            return cls(
                isolation=str(value["isolation"]), reason=str(value["reason"]),
                network=str(value["network"]), environ=environ,
            )  # fmt: skip
        except (OSError, ValueError, KeyError, TypeError, AttributeError):
            return None

    def write(self, path: Path) -> None:
        """In the place of an earlier one."""
        draft = path.with_suffix(".draft")
        fd = os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o600)
        with os.fdopen(fd, "w", encoding="utf-8", errors="surrogateescape") as file:
            json.dump({**asdict(self), "environ": dict(self.environ)}, file)
        draft.replace(path)


def kept(environ: Mapping[str, str]) -> dict[str, str]:
    """What is written down of an environment."""
    return {name: environ[name] for name in KEPT if name in environ}
