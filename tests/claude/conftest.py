"""A machine with the product, the real Claude Code CLI, and our stand-in for the Messages API."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.claude.seed import DUMMY_KEY
from tests.machine.cache import Layer
from tests.machine.fixtures import NewMachine
from tests.machine.install import CHECKOUT, copy_checkout
from tests.machine.product import CONFIG, HOME, Product

API_PORT = 8099
API_LOG = f"{HOME}/api.log"
ENVIRONMENT = f"""\
ANTHROPIC_BASE_URL=http://127.0.0.1:{API_PORT}
ANTHROPIC_API_KEY={DUMMY_KEY}
CLAUDE_CODE_DISABLE_NONESSENTIAL_TRAFFIC=1
DISABLE_AUTOUPDATER=1
"""


def furnish(product: Product) -> Product:
    """Answers the CLI's first-run questions, gives it its key, starts the API."""
    machine = product.machine
    copy_checkout(machine)
    machine.run(["python3", f"{CHECKOUT}/tests/claude/seed.py", HOME])
    machine.run(["sh", "-c", f"umask 077; cat > {CONFIG}/agent.env"], input=ENVIRONMENT)
    start_api(product)
    product.make_repository()
    return product


def start_api(product: Product) -> None:
    """The stand-in, as a unit of the operator's, and waits until it listens."""
    program = f"{CHECKOUT}/tests/claude/messages_api.py"
    product.machine.run(
        ["systemd-run", "--user", "--quiet", "--unit=messages-api",
         "python3", program, "--port", str(API_PORT), "--log", API_LOG]
    )  # fmt: skip
    ask = f"import urllib.request as u; u.urlopen('http://127.0.0.1:{API_PORT}/')"
    product.machine.wait_for(
        lambda: product.machine.run(["python3", "-c", ask], check=False).returncode == 0,
        what="the API",
    )


@pytest.fixture(scope="module")
def product(installed: Layer, module_machines: NewMachine, claude_binary: Path) -> Product:
    """One machine for the tests of a module; each makes tickets of its own."""
    return furnish(
        Product(module_machines(installed, binds={claude_binary: "/usr/local/bin/claude"}))
    )
