"""Make the HOME of a test ready for an agent CLI that nobody has logged in to.

Outside the product: writes the `.claude.json` that answers the questions of a first run, so that
the CLI talks to the stand-in of `messages_api.py` with a dummy key. Trust in folders is left out
on purpose: giving it is the product's work, and a test would hide it.

    python3 seed.py HOME [API_KEY]
"""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path
from typing import Any

DUMMY_KEY = "sk-ant-api03-dummy-key-of-the-tests-0123456789"
APPROVED_CHARS = 20  # the CLI remembers a key it may use by this many of its last characters


def settings(api_key: str = DUMMY_KEY) -> dict[str, Any]:
    """What a person would have answered at the first start."""
    return {
        "hasCompletedOnboarding": True,
        "customApiKeyResponses": {"approved": [api_key[-APPROVED_CHARS:]], "rejected": []},
        "hasAcknowledgedCostThreshold": True,
        "resumeReturnDismissed": True,
    }


def seed(home: Path, api_key: str = DUMMY_KEY) -> Path:
    """Adds the answers to `home`'s `.claude.json`, keeping what is there; returns its path."""
    path = home / ".claude.json"
    before = json.loads(path.read_text(encoding="utf-8")) if path.exists() else {}
    draft = path.with_name(f".claude.json.{os.getpid()}")
    draft.touch(mode=0o600)
    draft.write_text(json.dumps({**before, **settings(api_key)}, indent=1), encoding="utf-8")
    draft.replace(path)  # the CLI refuses to start on half a file
    return path


if __name__ == "__main__":
    print(seed(Path(sys.argv[1]), *sys.argv[2:3]))
