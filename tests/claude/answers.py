"""Permission requests on a machine, as the gateway sees and answers them.

Outside the product: runs the product's own `orchestrator.permits` with the installed interpreter.
"""

from __future__ import annotations

import json
import subprocess
from typing import Any

from tests.machine.product import HOME, Product

PYTHON = f"{HOME}/.local/share/mission-control/venv/bin/python"
_PROGRAM = """
import json, sys
from orchestrator import config, permits
paths = config.load().ticket_paths(int(sys.argv[1]))
asked = json.loads(sys.argv[2])
if asked:
    permits.answer(paths, **asked)
print(json.dumps([
    {"id": r.request_id, "tool": r.tool, "input": dict(r.input)} for r in permits.open_requests(paths)
]))
"""


def _run(product: Product, ticket: int, asked: dict[str, Any]) -> subprocess.CompletedProcess[str]:
    return product.machine.run(
        [PYTHON, "-I", "-c", _PROGRAM, str(ticket), json.dumps(asked)], check=False
    )


def requests(product: Product, ticket: int) -> list[dict[str, Any]]:
    """What is open."""
    done = _run(product, ticket, {})
    assert done.returncode == 0, done.stderr
    found: list[dict[str, Any]] = json.loads(done.stdout)
    return found


def request(product: Product, ticket: int, count: int = 1) -> dict[str, Any]:
    """Waits until so many are open; the oldest."""
    product.machine.wait_for(
        lambda: len(requests(product, ticket)) == count, what=f"{count} permission requests"
    )
    return requests(product, ticket)[0]


def answer(product: Product, ticket: int, request_id: str, behavior: str, **more: Any) -> bool:
    """Answers one; False when it had gone."""
    asked = {"request_id": request_id, "behavior": behavior, "by": "op", **more}
    done = _run(product, ticket, asked)
    assert done.returncode == 0 or "That request has gone" in done.stderr, done.stderr
    return done.returncode == 0
