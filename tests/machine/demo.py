"""`./install.sh --demo`: the product in a throw-away machine, for a look.

Boots a fresh Debian, runs the real install.sh in it, makes ticket 42 with the demo agent, starts it
with systemctl, sends it a message, and shows that the answer came through every way there is: the
pane log, the sidecar, and the gateway's stream. Then it waits for Ctrl-C; the machine is thrown away.

Standard library only: it runs where nothing is installed yet.
"""

from __future__ import annotations

import argparse
import base64
import http.client
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable

from tests.machine.base import ensure_base
from tests.machine.commands import MachineError
from tests.machine.install import CHECKOUT, copy_checkout
from tests.machine.machine import Machine
from tests.machine.product import REPOSITORY, Product
from tests.machine.requirements import why_not

TICKET = 42
QUESTION, ANSWER = "hello what is 2+2", "2 + 2 = 4"
PACKAGES = (
    "mmdebstrap",
    "debian-archive-keyring",
    "systemd-container",
    "iproute2",
    "util-linux",
    "passt",
    "git",
)
REPLAY_BYTES = 10 * 1024  # else the first paint is a picture of the screen, not what was printed
ANSWER_TIMEOUT_S = 30
INSTALL_TIMEOUT_S = 1800


def say(text: str) -> None:
    """One line for the person who watches."""
    print(text, flush=True)


def ensure_packages() -> None:
    """What machines are booted with; apt brings what is missing."""
    asked = subprocess.run(
        ["dpkg-query", "-Wf", "${Package} ${db:Status-Status}\n", *PACKAGES],
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    there = {line.split()[0] for line in asked.stdout.splitlines() if line.endswith(" installed")}
    missing = [name for name in PACKAGES if name not in there]
    if missing:
        say(f"Installing {' '.join(missing)} ...")
        for argv in (
            ["update", "-qq"],
            ["install", "-qq", "-y", "--no-install-recommends", *missing],
        ):
            subprocess.run(["apt-get", *argv], check=True, stdout=subprocess.DEVNULL)


def free_port(wanted: int = 3001) -> int:
    """`wanted`, or any other when somebody has it: the machine shares this machine's addresses."""
    for port in (wanted, 0):
        with socket.socket() as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            try:
                probe.bind(("127.0.0.1", port))
            except OSError:
                continue
            return int(probe.getsockname()[1])
    raise MachineError("no free port on 127.0.0.1")


def until(what: str, ask: Callable[[], bool]) -> None:
    """Waits for an answer to come, and ticks it off."""
    deadline = time.monotonic() + ANSWER_TIMEOUT_S
    while not ask():
        if time.monotonic() > deadline:
            raise MachineError(f"the answer was not seen {what} within {ANSWER_TIMEOUT_S} s")
        time.sleep(0.1)  # three kinds of places, one of them in another machine
    say(f"  ✓ the answer was seen {what}")


def streamed(host: str, port: int, token: str) -> str:
    """What the gateway's stream shows of the pane: the last 10 KB, decoded."""
    connection = http.client.HTTPConnection(host, port, timeout=2)
    connection.request(
        "GET",
        f"/api/ticket/{TICKET}/stream?replay={REPLAY_BYTES}",
        headers={"Authorization": f"Bearer {token}"},
    )
    answer = connection.getresponse()
    shown, event = b"", b""
    try:
        while answer.status == http.client.OK and (line := answer.readline()):
            if line.startswith(b"event:"):
                event = line[6:].strip()
            elif line.startswith(b"data:") and event == b"pane":
                shown += base64.b64decode(line[5:])
                if ANSWER.encode() in shown:  # a first look comes in several pieces
                    break
    except TimeoutError:
        pass
    finally:
        connection.close()
    return shown.decode("utf-8", "replace")


def install(machine: Machine, port: int) -> None:
    """The real install.sh, its output as it comes."""
    copy_checkout(machine)
    argv = ["env", f"--chdir={CHECKOUT}", "./install.sh", "--listen", f"127.0.0.1:{port}"]
    process = machine.popen(argv, stdout=subprocess.PIPE, stderr=subprocess.STDOUT)
    assert process.stdout is not None
    for line in process.stdout:
        if b"/login?code=" not in line and b"Open in a browser" not in line:
            say("  | " + line.decode(errors="replace").rstrip())
    if process.wait(INSTALL_TIMEOUT_S):
        raise MachineError("install.sh failed, see above")


def show(product: Product, port: int) -> None:
    """Ticket 42, from its making to the answer."""
    machine = product.machine
    product.make_repository()
    say(f'\n$ ticketctl new "Say hello" --id {TICKET} --driver demo --repo ~/src/demo')
    product.new("Say hello", "--id", str(TICKET), "--driver", "demo", "--repo", REPOSITORY)
    say(f"$ systemctl --user start ticket@{TICKET}")
    product.systemctl("start", f"ticket@{TICKET}")
    say(product.systemctl("status", "--no-pager", "--lines=0", f"ticket@{TICKET}").stdout)
    say(f'$ ticketctl send {TICKET} "{QUESTION}"')
    product.send(TICKET, QUESTION)
    until("in the pane log", lambda: ANSWER in product.pane_log(TICKET))
    until(
        "in the sidecar's events",
        lambda: any(
            ANSWER in event["last_assistant_message"] for event in product.hooks(TICKET, "Stop")
        ),
    )
    token = machine.run(["cat", "/home/op/.local/state/mission-control/token"]).stdout.strip()
    until("over SSE", lambda: ANSWER in streamed("127.0.0.1", port, token))
    say("\n" + "\n".join(f"  {line}" for line in product.screen(TICKET).rstrip().splitlines()))


def main() -> int:
    """See the module."""
    parser = argparse.ArgumentParser(
        "./install.sh --demo", description="Mission Control, for a look."
    )
    parser.add_argument(
        "--once", action="store_true", help="end by itself once the answer was seen"
    )
    parser.add_argument(
        "--listen", help="127.0.0.1:PORT of the page (default: 3001, or a free one)"
    )
    options = parser.parse_args()
    ensure_packages()
    if reason := why_not():
        print(f"error: no machine can be booted here: {reason}", file=sys.stderr)
        return 1
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    port = int(options.listen.rpartition(":")[2]) if options.listen else free_port()
    say("Booting a throw-away machine (the first time, a fresh Debian is made; about a minute) ...")
    begun = time.monotonic()
    try:
        with Machine(ensure_base(), network="host") as machine:
            machine.boot()
            say(
                f"It is up ({time.monotonic() - begun:.0f} s). In it, as an ordinary user: ./install.sh"
            )
            install(machine, port)
            product = Product(machine)
            show(product, port)
            if options.once:
                say("\nDone. The machine is thrown away.")
                return 0
            say(f"\nThe live page, for a minute from now:\n  {product.login_link(TICKET)}")
            say(
                f"Another link: python3 -m tests.machine enter {machine.name} -- ticketctl open {TICKET}"
            )
            say("Ctrl-C ends it and throws the machine away.")
            signal.pause()
    except KeyboardInterrupt:
        say("\nThe machine is thrown away.")
    except MachineError as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
