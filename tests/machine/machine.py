"""A throw-away computer with a real systemd: boot it, use it, cut its power, throw it away.

The disk is an overlay: a layer from the cache beneath, the machine's own writes above. It is a
container of systemd-nspawn's, so the kernel, its clock and its page cache are the host's: a power
cut kills every process at once but loses no write the kernel had already taken.

Commands inside are `commands.py`'s, cleaning up is `record.py`'s.
"""

from __future__ import annotations

import atexit
import contextlib
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING, Self

from tests.machine import cgroup, host, record
from tests.machine.base import DEFAULT_SUITE, ensure_base
from tests.machine.cache import Layer, find_layer, new_layer, release
from tests.machine.commands import Commands, MachineError
from tests.machine.network import Network, create_network, netns_path
from tests.machine.notify import Notifications

if TYPE_CHECKING:
    from collections.abc import Mapping
    from types import FrameType

BOOT_SH = Path(__file__).with_name("boot.sh")
BOOT_TIMEOUT_S = 90.0
#: systemd itself kills a service that does not stop after 90 s
OFF_TIMEOUT_S = 100.0

_living: set[Machine] = set()


class Machine(Commands):
    """One machine. Not thread-safe for booting and powering off; commands may run side by side."""

    def __init__(
        self,
        layer: Layer | None = None,
        *,
        suite: str = DEFAULT_SUITE,
        network: Network = "none",
        binds: Mapping[str | Path, str] | None = None,
    ) -> None:
        """Prepare, without booting.

        Args:
            layer: what to boot from; the base of `suite` by default.
            suite: which Debian, when no layer is given.
            network: `internet` for a way out, `none` for loopback only, `host` to share the host's.
            binds: files or folders of the host to show inside, read-only: host's path to machine's.
        """
        self.layer = layer or ensure_base(suite)
        self.network = network
        self.binds = dict(binds or {})
        self._held = self.layer.hold()
        self.folder = record.create_record()
        self.name = self.folder.name
        self.cgroup = cgroup.cgroup_path(self.name)
        self.console = self.folder / "console.log"
        self.leader_pid = 0  #: the machine's PID 1 as the host sees it; 0 while off
        self._runner: subprocess.Popen[bytes] | None = None
        self._notifications: Notifications | None = None
        _watch(self)
        create_network(self.name, self.network)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.discard()

    # -- power ------------------------------------------------------------------------------------

    def boot(self) -> Machine:
        """Switch on and wait until it is up, the user manager of `op` included."""
        if self._runner is not None:
            raise MachineError(f"{self.name} is on already")
        host.furnish(self.folder / "upper")
        cgroup.create_cgroup(self.name)
        Path("/run/systemd/nspawn").mkdir(parents=True, exist_ok=True)
        self._notifications = Notifications(self.name)
        with self.console.open("ab") as console:
            self._runner = subprocess.Popen(
                ["unshare", "--mount", "--propagation=slave", "--", *self._boot_argv()],
                stdin=subprocess.DEVNULL,
                stdout=console,
                stderr=console,
                env={**os.environ, "NOTIFY_SOCKET": self._notifications.address},
                start_new_session=True,  # an operator's ^C is for the tests, which then clean up
            )
        record.note_runner(self.folder, self._runner.pid)
        self._wait_up()
        return self

    def reboot(self) -> None:
        """Restart in good order and wait until it is up again. The network stays."""
        os.kill(self._leader(), signal.SIGRTMIN + 5)
        self._wait_up()

    def power_off(self) -> None:
        """Shut down in good order and wait until it is off."""
        os.kill(self._leader(), signal.SIGRTMIN + 4)
        runner = self._runner
        assert runner is not None
        try:
            runner.wait(OFF_TIMEOUT_S)
        except subprocess.TimeoutExpired:
            raise self._failed("does not power off") from None
        self._is_off()

    def cut_power(self) -> None:
        """Kill everything in it at once, PID 1 first. `boot` then starts from the same disk."""
        if self.leader_pid:
            with contextlib.suppress(ProcessLookupError):
                os.kill(self.leader_pid, signal.SIGKILL)
        self._is_off()

    def discard(self) -> None:
        """Throw the machine away, its disk included. Nothing of it stays on the host."""
        _living.discard(self)
        if not self.folder.exists():
            return
        self._is_off()
        record.destroy(self.folder)
        release(self._held)

    @property
    def is_on(self) -> bool:
        """Whether it was booted and has not gone off by itself since."""
        return self._runner is not None and self._runner.poll() is None

    def snapshot(self, key: str) -> Layer:
        """Power off in good order and keep the disk as the read-only layer `key`.

        The machine then goes on from that layer: it can be booted again.
        """
        if self.is_on:
            self.power_off()
        below = (self.layer, *self.layer.below)
        with new_layer(key, below) as folder:
            (self.folder / "upper").rename(folder / "tree")
        layer = find_layer(key)
        assert layer is not None
        for name in ("upper", "work"):
            path = self.folder / name
            shutil.rmtree(path, ignore_errors=True)
            path.mkdir()
        release(self._held)
        self.layer, self._held = layer, layer.hold()
        return layer

    # -- looking ---------------------------------------------------------------------------------

    def netns_exec_argv(self) -> list[str]:
        """Return what to put before a command of the host, that 127.0.0.1 be the machine's."""
        if self.network == "host":
            return []
        return ["nsenter", f"--net={netns_path(self.name)}", "--"]

    def console_tail(self, lines: int = 40) -> str:
        """Return the last lines the machine wrote to its console."""
        with contextlib.suppress(FileNotFoundError):
            return "\n".join(self.console.read_text(errors="replace").splitlines()[-lines:])
        return ""

    # -- inner ------------------------------------------------------------------------------------

    def _boot_argv(self) -> list[str]:
        lower = ":".join(str(path) for path in self.layer.lowerdirs())
        upper, work = self.folder / "upper", self.folder / "work"
        # redirect_dir: a folder from below can be renamed, as on any disk
        overlay = f"lowerdir={lower},upperdir={upper},workdir={work},redirect_dir=on"
        argv = [str(BOOT_SH), str(self.folder / "root"), overlay, str(self.cgroup)]
        argv += [f"--machine={self.name}", f"--hostname={host.HOSTNAME}", "--console=read-only"]
        if self.network != "host":
            argv.append(f"--network-namespace-path={netns_path(self.name)}")
        argv += [f"--bind-ro={source}:{target}" for source, target in self.binds.items()]
        return argv

    def _wait_up(self) -> None:
        """Wait for nspawn's word that a new PID 1 inside is ready, then for the user manager."""
        deadline = time.monotonic() + BOOT_TIMEOUT_S
        before, self.leader_pid = self.leader_pid, 0
        assert self._notifications is not None
        while not self.leader_pid:
            if time.monotonic() > deadline or not self.is_on:
                raise self._failed("does not boot")
            # now and then look whether there is still something to wait for
            self.leader_pid = self._notifications.wait_ready(before, 0.5)
        record.note_leader(self.folder, self.leader_pid)
        self.run(["systemctl", "start", f"user@{host.OP_UID}.service"], user="root")
        for argv in (["systemctl"], ["systemctl", "--user"]):
            state = self.run(
                [*argv, "is-system-running", "--wait"],
                user="op",
                check=False,
                timeout=BOOT_TIMEOUT_S,
            ).stdout.strip()
            if state not in {"running", "degraded"}:
                raise self._failed(f"is {state or 'dead'} after booting")

    def _leader(self) -> int:
        if not self.leader_pid or not self.is_on:
            raise self._failed("is off")
        return self.leader_pid

    def _is_off(self) -> None:
        """Reap what booted it, and make sure that nothing of it runs."""
        if self._runner is not None:
            record.kill_machine(self.folder)
            self._runner.wait()
            self._runner = None
            cgroup.remove_cgroup(self.cgroup)
        if self._notifications is not None:
            self._notifications.close()
            self._notifications = None
        self.leader_pid = 0

    def _failed(self, what: str) -> MachineError:
        return MachineError(f"{self.name} {what}\n{self.console_tail()}")


def living() -> list[Machine]:
    """Return the machines of this process that were not discarded yet."""
    return list(_living)


def discard_all() -> None:
    """Throw away every machine of this process."""
    for machine in living():
        if machine.folder.exists():
            machine.discard()


def _watch(machine: Machine) -> None:
    """See to it that `machine` goes when this process does, by its end or by SIGTERM."""
    if not _living:
        owner = os.getpid()
        atexit.register(lambda: discard_all() if os.getpid() == owner else None)
        with contextlib.suppress(ValueError):  # not the main thread: the sweep will find it
            if signal.getsignal(signal.SIGTERM) is signal.SIG_DFL:
                signal.signal(signal.SIGTERM, _terminated)
    _living.add(machine)


def _terminated(number: int, _frame: FrameType | None) -> None:
    discard_all()
    signal.signal(number, signal.SIG_DFL)
    os.kill(os.getpid(), number)
    sys.exit(128 + number)
