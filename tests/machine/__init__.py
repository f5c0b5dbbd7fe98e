"""Throw-away computers with a real systemd, to try the product on.

    with Machine(network="internet") as machine:
        machine.boot()
        machine.run(["systemctl", "--user", "status"])

Needs root and systemd-nspawn, nothing but the standard library, and no systemd outside. `why_not()`
says what is missing. `python3 -m tests.machine` is the same for people. What is tried on the
machines is the test files' business.
"""

from tests.machine.cache import Layer
from tests.machine.commands import MachineError
from tests.machine.inside import Process, Terminal
from tests.machine.machine import Machine
from tests.machine.record import sweep
from tests.machine.requirements import why_not

__all__ = ["Layer", "Machine", "MachineError", "Process", "Terminal", "sweep", "why_not"]
