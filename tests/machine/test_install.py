"""install.sh on a machine: once, twice, dry, without root, without systemd, and gone again."""

from __future__ import annotations

import pytest

from tests.machine.fixtures import NewMachine
from tests.machine.install import CHECKOUT, REPOSITORY, copy_checkout
from tests.machine.machine import Machine
from tests.machine.product import CONFIG, HOME, STATE, TICKETCTL, Product

INSTALL = f"{CHECKOUT}/install.sh"


def test_a_second_run_changes_nothing_and_says_so(machine: Machine) -> None:
    """Idempotent: no file is touched, no process restarted, and no network is needed."""
    look = (
        f"find {HOME}/.config {HOME}/.local/share/mission-control -newer /tmp/mark -type f | grep -v __pycache__ || true;"
        " systemctl --user show -p MainPID --value tmux-mc mc-postgres mc-dispatch"
    )
    before = machine.sh(f"touch /tmp/mark; {look}").stdout
    done = machine.run([INSTALL])
    assert "Nothing had to be changed." in done.stdout
    assert "/login?code=" in done.stdout
    assert machine.sh(look).stdout == before


def test_units_are_installed_byte_for_byte(machine: Machine) -> None:
    """What is in units/ is what systemd runs, and systemd-analyze finds nothing to say."""
    folder = f"{HOME}/.config/systemd/user"
    for unit in sorted((REPOSITORY / "units").iterdir()):
        assert machine.run_bytes(["cat", f"{folder}/{unit.name}"]).stdout == unit.read_bytes(), (
            unit.name
        )
    done = machine.sh(
        f"cd {folder}; systemd-analyze --user verify --man=no --recursive-errors=no *.target *.slice *.socket"
        " mc-*.service tmux-mc.service ticket@1.service 2>&1"
    )
    assert done.stdout == ""


def test_doctor_finds_nothing_missing(machine: Machine) -> None:
    """doctor: every check ok, or a warning that says how to mend it."""
    done = Product(machine).ctl("doctor")
    for line in done.stdout.splitlines():
        assert not line.startswith(" bad"), done.stdout


_ASK = """
import socket, sys
listen = sys.argv[1]
if listen.startswith("/"):
    peer = socket.socket(socket.AF_UNIX)
    peer.connect(listen)
else:
    peer = socket.create_connection(listen.split(":"))
peer.sendall(b"GET /healthz HTTP/1.0\\r\\nHost: 127.0.0.1:3001\\r\\n\\r\\n")
print(peer.recv(64).decode().split()[1])
"""


@pytest.mark.parametrize("listen", ["/run/user/1000/gateway.sock", "127.0.0.1:3011"])
def test_another_address_is_the_sockets(machine: Machine, listen: str) -> None:
    """After setup systemd listens there: the gateway is started by whoever connects, as at the old address."""
    drop_in = f"{CONFIG}/conf.d/60-listen.toml"
    machine.sh(
        f"mkdir -p {CONFIG}/conf.d; printf '[gateway]\\nlisten = \"{listen}\"\\n' > {drop_in}"
    )
    try:
        machine.run([TICKETCTL, "setup"])
        machine.sh("systemctl --user stop mc-webgate.service")
        assert machine.run(["python3", "-c", _ASK, listen]).stdout.strip() in {"200", "403"}, (
            "some answer of the gateway's"
        )
        assert machine.sh("systemctl --user is-active mc-webgate.socket").stdout == "active\n"
        assert "Nothing had to be changed." in machine.run([TICKETCTL, "setup"]).stdout
    finally:
        machine.sh(f"rm {drop_in}")
        machine.run([TICKETCTL, "setup"])


def test_it_runs_again_after_a_reboot(machine: Machine) -> None:
    """Without a login: gateway, database, tmux server are up after a boot, the data is there."""
    product = Product(machine)
    ticket = product.new("still here", "--driver", "demo")
    machine.reboot()
    assert product.show(ticket)["title"] == "still here"
    assert machine.run(["python3", "-c", _HEALTHZ]).stdout.strip() == "200"
    product.systemctl("start", f"ticket@{ticket}")


def test_a_failed_gateway_port_is_said(fresh_machine: NewMachine, machine: Machine) -> None:
    """--listen with an address that is not loopback is refused before anything is written."""
    before = machine.run(["sha256sum", f"{CONFIG}/config.toml"]).stdout
    done = machine.run([INSTALL, "--listen", "0.0.0.0:3001"], check=False)
    assert done.returncode
    assert machine.run(["sha256sum", f"{CONFIG}/config.toml"]).stdout == before


def test_uninstall_keeps_the_data_and_purge_does_not(machine: Machine) -> None:
    """--uninstall stops and removes all but data and configuration; --purge those too."""
    product = Product(machine)
    for_shells = [
        f"{HOME}/.local/share/man/man1/ticketctl.1",
        f"{HOME}/.local/share/man/man5/ticket@.service.5",
        f"{HOME}/.local/share/man/man5/mission-control.toml.5",
        f"{HOME}/.local/share/bash-completion/completions/ticketctl",
    ]
    machine.run(["ls", *for_shells])
    ticket = product.new("to be kept", "--driver", "demo")
    product.ctl("start", str(ticket))
    dry = machine.run([INSTALL, "--uninstall", "--dry-run"])
    assert "would be done" in dry.stdout
    assert product.unit(ticket)["ActiveState"] == "active"
    machine.run([INSTALL, "--uninstall"], timeout=120)
    assert machine.run(["pgrep", "-f", "mission-control|demo_agent"], check=False).stdout == ""
    assert machine.sh("ls ~/.config/systemd/user | grep -cE 'mc|ticket' || true").stdout == "0\n"
    assert machine.run(["test", "-d", f"{STATE}/postgres"]).returncode == 0
    assert machine.run(["ls", *for_shells], check=False).stdout == ""
    again = machine.run([INSTALL, "--uninstall"], check=False)
    assert "not installed" in again.stdout
    assert machine.run(["test", "-d", f"{STATE}/postgres"]).returncode == 0
    machine.run([INSTALL, "--uninstall", "--purge"])
    for gone in (STATE, CONFIG):
        assert machine.run(["test", "-e", gone], check=False).returncode


def test_purge_leaves_nothing_but_the_worktrees(machine: Machine) -> None:
    """--uninstall --purge in one go, with a ticket running: its worktree is the operator's and stays."""
    product = Product(machine)
    ticket = product.new("work", "--driver", "demo", "--repo", product.make_repository())
    product.ctl("start", str(ticket))
    machine.run([INSTALL, "--uninstall", "--purge"], timeout=120)
    for gone in (
        STATE,
        CONFIG,
        f"{HOME}/.local/share/mission-control",
        f"{HOME}/.local/bin/ticketctl",
    ):
        assert machine.run(["test", "-e", gone], check=False).returncode, gone
    assert machine.run(["test", "-e", f"{HOME}/src/wt/ticket-{ticket}/README"]).returncode == 0


def test_what_needs_root_is_one_line(fresh_machine: NewMachine) -> None:
    """--no-sudo and --dry-run on a fresh machine say what is missing, and do nothing."""
    machine = fresh_machine(network="none")
    copy_checkout(machine)
    dry = machine.run([INSTALL, "--dry-run"])
    assert "Would run: sudo" in dry.stdout
    assert "postgresql" in dry.stdout
    done = machine.run([INSTALL, "--no-sudo"], check=False)
    assert done.returncode == 1
    assert sum("apt-get install" in line for line in done.stdout.splitlines()) == 1
    assert machine.run(
        ["test", "-e", f"{HOME}/.local/share/mission-control/venv"], check=False
    ).returncode
    # the same where nothing was booted: one sentence, which names the way out
    hidden = f"mount -t tmpfs none /run/systemd && exec runuser -u op -- {INSTALL}"
    done = machine.run(["unshare", "-m", "sh", "-c", hidden], user="root", check=False)
    assert done.returncode == 1
    assert len(done.stderr.splitlines()) == 1
    assert "--demo" in done.stderr
    done = machine.run([INSTALL], user="root", check=False)
    assert "not as root" in done.stderr
    done = machine.run([INSTALL, "--frobnicate"], check=False)
    assert done.returncode == 2
    assert "--frobnicate" in done.stderr


def test_a_failed_step_says_where_to_look(fresh_machine: NewMachine) -> None:
    """Without a network: the step that failed, the end of its output, the file with all of it."""
    machine = fresh_machine(network="none")
    copy_checkout(machine)
    done = machine.run([INSTALL], check=False, timeout=300)
    assert done.returncode
    assert "packages" in done.stderr
    assert "install.log" in done.stderr


def test_a_program_of_pipx_is_left_to_pipx(machine: Machine) -> None:
    """Where units run a program that is elsewhere, install.sh changes nothing and names both ways on."""
    venv = f"{HOME}/.local/share/mission-control/venv"
    machine.sh(f"mv {venv} ~/elsewhere && ln -s ~/elsewhere {venv}")
    before = machine.sh(
        "find ~/elsewhere ~/.config -type f -print0 | sort -z | xargs -0 sha256sum"
    ).stdout
    done = machine.run([INSTALL], check=False)
    assert (done.returncode, done.stdout) == (1, "")
    assert f"The program is in {HOME}/elsewhere" in done.stderr
    assert "pipx uninstall mission-control" in done.stderr
    assert (
        machine.sh(
            "find ~/elsewhere ~/.config -type f -print0 | sort -z | xargs -0 sha256sum"
        ).stdout
        == before
    )


def test_debian_12_too(fresh_machine: NewMachine, installed_on: object) -> None:
    """The older release: systemd 252, tmux 3.3a; a ticket starts, is killed, comes back, stops."""
    layer = installed_on("bookworm")  # type: ignore[operator]
    machine = fresh_machine(layer)
    product = Product(machine)
    assert "252" in product.ctl("doctor").stdout
    ticket = product.new("Say hello", "--driver", "demo", "--repo", product.make_repository())
    product.systemctl("start", f"ticket@{ticket}")
    product.say(ticket, "what is 40+2")
    product.wait_screen(ticket, "40 + 2 = 42")
    before = product.main_pid(ticket)
    assert before in product.cgroup_pids(ticket)
    machine.sh(f"kill -9 {before}")
    machine.wait_for(lambda: product.main_pid(ticket) not in {0, before}, what="it is back")
    product.wait_screen(ticket, "resumed")
    product.systemctl("stop", f"ticket@{ticket}")
    assert product.unit(ticket)["Result"] == "success"


_HEALTHZ = "import urllib.request as u; print(u.urlopen('http://127.0.0.1:3001/healthz').status)"
