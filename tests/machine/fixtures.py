"""The machines as pytest fixtures; `tests/conftest.py` loads them for every test.

A test that asks for one is skipped, with the reason, where no machine can run. A test that fails
with a machine running shows that machine's console and journal.
"""

from __future__ import annotations

import os
from contextlib import ExitStack
from typing import TYPE_CHECKING, Any, Protocol

import pytest

from tests.machine import claude_cli
from tests.machine.base import DEFAULT_SUITE, ensure_base
from tests.machine.cache import release
from tests.machine.commands import MachineError
from tests.machine.install import ensure_installed
from tests.machine.machine import Machine, living
from tests.machine.record import sweep
from tests.machine.requirements import why_not

if TYPE_CHECKING:
    from collections.abc import Callable, Generator, Iterator, Mapping
    from pathlib import Path

    from tests.machine.cache import Layer
    from tests.machine.network import Network


class NewMachine(Protocol):
    """Boots a machine that lives until the test ends."""

    def __call__(  # noqa: D102
        self,
        layer: Layer | None = None,
        *,
        suite: str = ...,
        network: Network = ...,
        binds: Mapping[str | Path, str] | None = None,
        boot: bool = True,
    ) -> Machine: ...


def _factory(stack: ExitStack) -> NewMachine:
    def new(
        layer: Layer | None = None,
        *,
        suite: str = chosen_suite(),
        network: Network = "none",
        binds: Mapping[str | Path, str] | None = None,
        boot: bool = True,
    ) -> Machine:
        chosen = layer or ensure_base(suite)
        machine = stack.enter_context(Machine(chosen, network=network, binds=binds))
        return machine.boot() if boot else machine

    return new


def chosen_suite() -> str:
    """Return the Debian to test on: `$MC_TEST_SUITE`, or the default."""
    return os.environ.get("MC_TEST_SUITE") or DEFAULT_SUITE


@pytest.fixture(scope="session")
def can_run_machines() -> None:
    """Skip where no machine can run. Removes what killed test runs left, first."""
    if reason := why_not():
        pytest.skip(reason)
    sweep()


@pytest.fixture
def fresh_machine(can_run_machines: None) -> Iterator[NewMachine]:
    """Boot fresh machines: `fresh_machine(suite="bookworm", network="internet")`."""
    with ExitStack() as stack:
        yield _factory(stack)


@pytest.fixture(scope="module")
def module_machines(can_run_machines: None) -> Iterator[NewMachine]:
    """Do as `fresh_machine` does; what it boots lives until the module's tests are done."""
    with ExitStack() as stack:
        yield _factory(stack)


@pytest.fixture(scope="session")
def installed_on(can_run_machines: None) -> Iterator[Callable[[str], Layer]]:
    """Return the layer with the product installed, for a suite by name; made once a test run.

    Whoever changes the product meanwhile changes nothing for the tests that run.
    """
    layers: dict[str, Layer] = {}
    held: list[int] = []

    def on(suite: str) -> Layer:
        if suite not in layers:
            layers[suite] = ensure_installed(suite)
            held.extend(layers[suite].hold())
        return layers[suite]

    yield on
    release(held)


@pytest.fixture(scope="session")
def installed(installed_on: Callable[[str], Layer]) -> Layer:
    """Return the layer with the product installed by its ./install.sh, on the chosen suite."""
    return installed_on(chosen_suite())


@pytest.fixture
def machine(installed: Layer, fresh_machine: NewMachine) -> Machine:
    """Boot a machine of this test's own, with the product installed and no way out of it."""
    return fresh_machine(installed)


@pytest.fixture(scope="module")
def module_machine(installed: Layer, module_machines: NewMachine) -> Machine:
    """Boot one for all tests of a module, with the product installed and no way out of it."""
    return module_machines(installed)


@pytest.fixture(scope="session")
def claude_binary() -> Path:
    """Return the pinned Claude Code CLI on the host; show it to a machine by `binds`."""
    try:
        return claude_cli.ensure_claude()
    except claude_cli.NoClaudeError as error:
        pytest.skip(str(error))


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(
    item: pytest.Item, call: pytest.CallInfo[Any]
) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    """Show the consoles and journals of the running machines beside a failure."""
    report = yield
    if report.failed:
        for machine in living():
            report.sections.append((f"console of {machine.name}", machine.console_tail()))
            if machine.is_on:
                try:
                    tail = machine.run(
                        ["journalctl", "--no-pager", "-n", "60"], user="root", timeout=10
                    )
                except (MachineError, OSError, TimeoutError):
                    continue
                report.sections.append((f"journal of {machine.name}", tail.stdout))
    return report
