"""The test machines themselves: what a test may rely on, and that nothing of them is left."""

from __future__ import annotations

import functools
import os
import signal
import subprocess
import sys
import time
from typing import TYPE_CHECKING

import pytest

from tests.machine import Machine, MachineError, record, why_not
from tests.machine.cache import find_layer, locked, remove_tree
from tests.machine.install import REPOSITORY

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from tests.machine.fixtures import NewMachine

USER_BUS = "sudo apt-get -q update && sudo apt-get -qy install dbus-user-session"


def traces(name: str) -> dict[str, str]:
    """Return what of the machine is to be found on the host."""
    look: dict[str, list[str]] = {
        "mounts": ["findmnt", "--noheadings", "--output=TARGET"],
        "namespaces": ["ip", "netns", "list"],
        "processes": ["ps", "-e", "-ww", "-o", "args="],
        "cgroups": ["find", "/sys/fs/cgroup", "-name", f"*{name}*"],
        "folders": ["ls", "-a", str(record.machines_dir())],
    }
    found = {}
    for what, argv in look.items():
        lines = subprocess.run(argv, capture_output=True, text=True, check=True).stdout.splitlines()
        if hits := [line for line in lines if name in line and argv[0] not in line.split()]:
            found[what] = "\n".join(hits)
    return found


@pytest.fixture(scope="module")
def shared(module_machines: NewMachine) -> Machine:
    """Boot one machine for the tests that leave it as it was."""
    return module_machines()


@pytest.mark.parametrize("suite", ["trixie", "bookworm"])
def test_boot(fresh_machine: NewMachine, suite: str) -> None:
    """A fresh machine is the Debian asked for, fully up, without what install.sh has to bring."""
    machine = fresh_machine(suite=suite)
    assert f"VERSION_CODENAME={suite}\n" in machine.run(["cat", "/etc/os-release"]).stdout
    state = machine.run(["systemctl", "is-system-running"], check=False).stdout.strip()
    failed = machine.run(["systemctl", "--failed", "--no-legend", "--plain"]).stdout
    assert (state, failed) == ("running", "")
    for program in ("tmux", "gcc", "psql", "pg_config"):
        assert machine.run(["which", program], check=False).returncode == 1
    assert machine.run(["python3", "-c", "import venv"], check=False).returncode != 0
    assert not machine.run(["ls", "/var/lib/systemd/linger"], check=False).stdout


def test_run_as_op(shared: Machine) -> None:
    """Commands run as the ordinary user at home, with sudo, untouched by any shell."""
    assert shared.run(["id", "-un"]).stdout == "op\n"
    assert shared.run(["pwd"]).stdout == "/home/op\n"
    odd = ["; rm -rf /", "$(id)", "a b\nc", "", "*", "ü"]
    assert shared.run(["printf", "%s\\0", *odd]).stdout.split("\0")[:-1] == odd
    assert shared.run(["sudo", "id", "-un"]).stdout == "root\n"
    assert shared.run(["cat"], input="in\n").stdout == "in\n"
    assert shared.run(["env"], env={"MC_X": "y=z"}).stdout.count("MC_X=y=z\n") == 1
    assert shared.sh("false | true", check=False).returncode == 1


def test_failure_is_told(shared: Machine) -> None:
    """A failure raises, and what was printed is in the message; without check it does not."""
    with pytest.raises(MachineError, match=r"(?s)ended with 3.*the reason"):
        shared.run(["sh", "-c", "echo the reason >&2; exit 3"])
    assert shared.run(["sh", "-c", "exit 3"], check=False).returncode == 3


def test_timeout_kills(shared: Machine) -> None:
    """A command that takes too long is killed inside, children and all."""
    with pytest.raises(subprocess.TimeoutExpired) as caught:
        shared.run(["sh", "-c", "echo early; sleep 4711 & sleep 4711"], timeout=0.5)
    assert caught.value.output == b"early\n"
    running = shared.sh("cat /proc/[0-9]*/cmdline | tr '\\0' ' '").stdout
    assert "systemd" in running
    assert "sleep 4711" not in running


def test_daemon_stays(shared: Machine) -> None:
    """What a command leaves behind goes on, and does not hold the call."""
    began = time.monotonic()
    pid = shared.sh("sleep 4712 & echo $!").stdout.strip()
    assert time.monotonic() - began < 5
    assert shared.sh(f"kill {pid}").returncode == 0


def test_user_manager(shared: Machine) -> None:
    """The user has a running systemd: a service of theirs runs, its journal is readable."""
    shared.sh("systemd-run --user --unit=hello sh -c 'echo hello from a unit'")
    heard = shared.wait_for(lambda: shared.journal(user_unit="hello"), what="journal")
    assert "hello from a unit" in heard
    assert "hello from a unit" not in shared.journal("dbus.service")


def test_terminal(shared: Machine) -> None:
    """A command at a terminal knows it by name and size, and notices when it is resized."""
    with shared.pty(
        ["sh", "-c", 'tty; stty size; exec perl -e "$0"', PERL_RESIZED], columns=100, rows=30
    ) as terminal:
        terminal.expect(rb"/dev/pts/\d+\r\n30 100\r\nlistening\r\n")
        terminal.resize(90, 20)
        terminal.expect(rb"20 90\r\n")
        terminal.send(b"typed\n")
        terminal.expect(rb"got typed\r\n")
        while terminal.read():
            pass
        assert terminal.process.wait() == 7


def test_copy(shared: Machine, tmp_path: Path) -> None:
    """Files and folders go in and come out byte for byte, modes kept, with the owner asked for."""
    tree = tmp_path / "tree"
    (tree / "sub").mkdir(parents=True)
    (tree / "sub" / "raw").write_bytes(bytes(range(256)))
    (tree / "run").write_text("#!/bin/sh\necho ran\n")
    (tree / "run").chmod(0o755)
    (tree / "left out").write_text("x")
    shared.copy_in(tree, "/home/op/in/tree", names=["sub/raw", "run"])
    assert shared.run(["/home/op/in/tree/run"]).stdout == "ran\n"
    assert shared.run(["stat", "-c%U", "/home/op/in/tree/sub/raw"]).stdout == "op\n"
    assert shared.run(["ls", "/home/op/in/tree"]).stdout.split() == ["run", "sub"]
    shared.copy_in(tree / "run", "/etc/thing", owner="root")
    assert shared.run(["stat", "-c%U %a", "/etc/thing"]).stdout == "root 755\n"
    shared.copy_out("/home/op/in/tree", tmp_path / "back")
    shared.copy_out("/home/op/in/tree/sub/raw", tmp_path / "raw")
    for copy in (tmp_path / "back/sub/raw", tmp_path / "raw"):
        assert copy.read_bytes() == bytes(range(256))
    with pytest.raises(MachineError):
        shared.copy_out("/nothing", tmp_path / "nothing")


def test_internet(fresh_machine: NewMachine) -> None:
    """With the internet, apt works, and the user's own bus can be had."""
    machine = fresh_machine(network="internet")
    machine.sh(USER_BUS, timeout=300)
    machine.reboot()
    assert "org.freedesktop.systemd1" in machine.run(["busctl", "--user", "list"]).stdout


def test_no_network(shared: Machine) -> None:
    """Without, there is loopback and nothing else."""
    assert shared.run(["ip", "-o", "link"]).stdout.count("\n") == 1
    assert "127.0.0.1" in shared.run(["ip", "-4", "address"]).stdout


def test_reboot_keeps_the_disk(fresh_machine: NewMachine) -> None:
    """A reboot is a new boot of the same disk."""
    machine = fresh_machine()
    machine.sh("echo kept >kept; echo lost >/run/user/1000/lost")
    first = machine.run(["cat", "/proc/sys/kernel/random/boot_id"]).stdout
    leader = machine.leader_pid
    machine.reboot()
    assert machine.leader_pid != leader
    assert machine.run(["cat", "kept"]).stdout == "kept\n"
    assert machine.run(["ls", "/run/user/1000/lost"], check=False).returncode == 2
    assert machine.run(["cat", "/proc/sys/kernel/random/boot_id"]).stdout != first


def test_much_to_say(fresh_machine: NewMachine) -> None:
    """However often PID 1 has something to say, it stops for nobody: reboot and power off work."""
    machine = fresh_machine()
    machine.sh("for i in {1..8}; do systemctl daemon-reload; done", user="root")
    leader = machine.leader_pid
    machine.reboot()
    assert machine.leader_pid != leader
    machine.sh("for i in {1..8}; do systemctl daemon-reload; done", user="root")
    machine.power_off()
    assert not machine.is_on


def test_power_cut(fresh_machine: NewMachine) -> None:
    """A power cut lets nothing shut down, and the disk boots again."""
    machine = fresh_machine()
    machine.sh("echo kept >kept")
    machine.sh(
        "systemd-run --user --unit=careful -p ExecStopPost='touch /home/op/stopped' sleep infinity"
    )
    machine.cut_power()
    assert not machine.is_on
    with pytest.raises(MachineError, match="is off"):
        machine.run(["true"])
    machine.boot()
    assert machine.run(["ls"]).stdout == "kept\n"
    machine.sh(
        "systemd-run --user --unit=careful -p ExecStopPost='touch /home/op/stopped' sleep infinity"
    )
    machine.power_off()
    machine.boot()
    assert machine.run(["ls"]).stdout.split() == ["kept", "stopped"]


def test_side_by_side(fresh_machine: NewMachine) -> None:
    """Two machines have a cgroup, a disk and a network each: the same port serves both."""
    machines = [fresh_machine(), fresh_machine()]
    for number, machine in enumerate(machines):
        machine.sh(f"echo machine {number} >name")
        serve = PERL_SERVER.replace("ANSWER", str(number))
        machine.run(
            ["systemd-run", "--user", "--unit=server", "perl", "-MIO::Socket::INET", "-e", serve]
        )
    for number, machine in enumerate(machines):
        assert machine.run(["cat", "name"]).stdout == f"machine {number}\n"
        assert machine.wait_for(functools.partial(ask_3001, machine)) == f"{number}\n"
    machines[1].cut_power()
    assert machines[0].run(["systemctl", "is-system-running"]).stdout == "running\n"


PERL_RESIZED = """
$| = 1; $SIG{WINCH} = sub { system 'stty size' }; print "listening\\n";
do { $typed = <STDIN> } until defined $typed; print "got $typed"; exit 7
"""

PERL_SERVER = """
my $s = IO::Socket::INET->new(Listen => 5, LocalAddr => '127.0.0.1', LocalPort => 3001) or die;
while (my $c = $s->accept) { print $c ANSWER; close $c }
"""


def ask_3001(machine: Machine) -> str:
    """Read from port 3001 of the machine with a program of the host."""
    ask = "import socket; print(socket.create_connection(('127.0.0.1', 3001), 5).recv(9).decode())"
    argv = [*machine.netns_exec_argv(), sys.executable, "-c", ask]
    return subprocess.run(argv, capture_output=True, text=True, check=False).stdout


def test_bind(fresh_machine: NewMachine, tmp_path: Path) -> None:
    """A file of the host can be shown inside, and not changed there."""
    tmp_path.parent.chmod(0o755)
    (tmp_path / "file").write_text("of the host\n")
    machine = fresh_machine(binds={tmp_path / "file": "/opt/shown/file"})
    assert machine.run(["cat", "/opt/shown/file"]).stdout == "of the host\n"
    assert machine.run(["sh", "-c", "echo >/opt/shown/file"], user="root", check=False).returncode


def test_cgroup_controllers(shared: Machine) -> None:
    """A test of limits can learn whether limits are enforced: exactly then the files are there."""
    enforced = "memory" in shared.cgroup_controllers()
    files = shared.run(["ls", "/sys/fs/cgroup/system.slice"]).stdout.split()
    assert ("memory.max" in files) == enforced


def test_snapshot(fresh_machine: NewMachine) -> None:
    """What was on a kept disk is on every machine booted from it, each writing for itself."""
    first = fresh_machine()
    first.sh("mkdir old && echo one >old/file && rm .profile")
    key = f"selftest-{first.name}"
    try:
        layer = first.snapshot(key)
        assert find_layer(key) == layer
        second = fresh_machine(layer)
        assert second.run(["cat", "old/file"]).stdout == "one\n"
        assert second.run(["ls", ".profile"], check=False).returncode == 2
        second.sh("perl -e 'rename qw(old new) or die $!' && echo two >new/file")
        first.boot()
        assert first.run(["cat", "old/file"]).stdout == "one\n"
        second.reboot()
        assert second.run(["cat", "new/file"]).stdout == "two\n"
    finally:
        first.discard()
        if kept := find_layer(key):
            remove_tree(kept.path)


def test_discard_leaves_nothing(fresh_machine: NewMachine) -> None:
    """Discarded, on or off: no mount, process, network namespace, cgroup or file is left."""
    running, cut, off = (fresh_machine(network="internet") for _ in range(3))
    running.sh("sleep 4713 & disown")
    cut.cut_power()
    off.power_off()
    assert set(traces(running.name)) == {"mounts", "namespaces", "processes", "cgroups", "folders"}
    for machine in (running, cut, off):
        machine.discard()
        assert traces(machine.name) == {}
        machine.discard()  # twice is fine


OWNER = """
import signal, sys
from tests.machine import Machine
machine = Machine(network="internet").boot()
print(machine.name, flush=True)
signal.pause()
"""


@pytest.fixture
def orphan() -> Callable[[int], str]:
    """End a process that owns a running machine by a signal; return the machine's name."""

    def end(number: int) -> str:
        argv = [sys.executable, "-c", OWNER]
        with subprocess.Popen(argv, cwd=REPOSITORY, stdout=subprocess.PIPE, text=True) as owner:
            assert owner.stdout is not None
            name = owner.stdout.readline().strip()
            owner.send_signal(number)
            assert owner.wait(30) == -number or number == signal.SIGINT
        return name

    return end


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_owner_ends(can_run_machines: None, orphan: Callable[[int], str], number: int) -> None:
    """A test run that is terminated or interrupted takes its machines with it."""
    assert traces(orphan(number)) == {}


def test_owner_killed(shared: Machine, orphan: Callable[[int], str]) -> None:
    """What a killed test run leaves is swept by the next, and nothing else is."""
    name = orphan(signal.SIGKILL)
    assert "cgroups" in traces(name)
    assert name in record.sweep()
    assert traces(name) == {}
    assert shared.run(["true"]).returncode == 0


def test_lock(can_run_machines: None) -> None:
    """Two builders of one thing take turns."""
    take = "from tests.machine.cache import locked\nwith locked('selftest'): print('taken')"
    with locked("selftest"):
        other = subprocess.Popen(
            [sys.executable, "-c", take], cwd=REPOSITORY, stdout=subprocess.PIPE
        )
        with pytest.raises(subprocess.TimeoutExpired):
            other.wait(0.5)
    assert other.communicate(timeout=10)[0] == b"taken\n"


def test_why_not(monkeypatch: pytest.MonkeyPatch) -> None:
    """Who cannot run machines is told why in one line, and skipped rather than failed."""
    with monkeypatch.context() as patch:
        patch.setattr(os, "geteuid", lambda: 65534)
        assert why_not.__wrapped__() == "test machines need root"
    with monkeypatch.context() as patch:
        patch.setattr(os, "geteuid", lambda: 0)
        patch.setenv("PATH", "/nowhere")
        assert "apt-get install mmdebstrap" in (why_not.__wrapped__() or "")
