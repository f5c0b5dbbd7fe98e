"""The product on a machine, as its operator sees it: ticketctl, systemctl, files, pages.

Only what an operator could type; what is inside the product's modules is not used here.
"""

from __future__ import annotations

import json
import subprocess
from typing import Any

from tests.machine.machine import Machine

HOME = "/home/op"
STATE = f"{HOME}/.local/state/mission-control"
DATA = f"{HOME}/.local/share/mission-control"
CONFIG = f"{HOME}/.config/mission-control"
TICKETCTL = f"{HOME}/.local/bin/ticketctl"
GATEWAY = "http://127.0.0.1:3001"
REPOSITORY = f"{HOME}/src/demo"


class Product:
    """Mission Control on a booted machine."""

    def __init__(self, machine: Machine) -> None:
        self.machine = machine

    # -- ticketctl -------------------------------------------------------------------------------

    def ctl(self, *args: str, check: bool = True) -> subprocess.CompletedProcess[str]:
        """Runs ticketctl."""
        return self.machine.run([TICKETCTL, *args], check=check)

    def new(self, title: str, *args: str) -> int:
        """A new ticket's number."""
        return int(self.ctl("new", title, *args).stdout)

    def show(self, ticket: int) -> dict[str, Any]:
        """`ticketctl show --json`."""
        shown: dict[str, Any] = json.loads(self.ctl("show", str(ticket), "--json").stdout)
        return shown

    def outcome(self, ticket: int, message: int) -> str:
        """What became of a message."""
        listed = json.loads(self.ctl("queue", str(ticket), "-n", "1000", "--json").stdout)
        return next((str(m["outcome"]) for m in listed if m["id"] == message), "")

    def send(self, ticket: int, text: str) -> int:
        """Queues a message; its number."""
        return int(self.ctl("send", str(ticket), "--", text).stdout)

    def say(self, ticket: int, text: str) -> None:
        """Sends a message and waits until the worker showed that it has it."""
        message = self.send(ticket, text)
        self.machine.wait_for(
            lambda: self.outcome(ticket, message) not in {"queued", "sent"}, what="an outcome"
        )
        assert self.outcome(ticket, message) == "confirmed", self.show(ticket)["messages"]

    # -- systemd ---------------------------------------------------------------------------------

    def systemctl(self, *args: str, check: bool = True) -> subprocess.CompletedProcess[str]:
        """Runs systemctl --user."""
        return self.machine.run(["systemctl", "--user", *args], check=check, timeout=120)

    def unit(self, ticket: int) -> dict[str, str]:
        """`systemctl show` of a ticket."""
        wanted = (
            "ActiveState,SubState,Result,MainPID,NRestarts,StatusText,ControlGroup,ExecMainStatus"
        )
        out = self.systemctl("show", f"ticket@{ticket}", "-p", wanted).stdout
        return dict(line.split("=", 1) for line in out.splitlines())

    def main_pid(self, ticket: int) -> int:
        """The unit's main process; 0 for none."""
        return int(self.unit(ticket)["MainPID"])

    def cgroup_pids(self, ticket: int) -> list[int]:
        """Everything in the ticket's cgroup."""
        path = f"/sys/fs/cgroup{self.unit(ticket)['ControlGroup']}"
        out = self.machine.run(
            ["sh", "-c", f"find {path} -name cgroup.procs -exec cat {{}} + 2>/dev/null || true"]
        ).stdout
        return [int(pid) for pid in out.split()]

    def command_lines(self) -> list[str]:
        """What runs on the machine."""
        each = "for c in /proc/[0-9]*/cmdline; do tr '\\0' ' ' < $c && echo; done 2>/dev/null; true"
        return self.machine.sh(each).stdout.splitlines()

    def agent_pids(self, ticket: int) -> list[int]:
        """The same without what the ticket's sandbox consists of."""
        listed = self.machine.run(["ps", "-o", "pid=,comm=", "-p", "1," + ",".join(
            str(pid) for pid in self.cgroup_pids(ticket))]).stdout  # fmt: skip
        rows = [line.split() for line in listed.splitlines()]
        return [int(pid) for pid, name in rows if name != "bwrap" and pid != "1"]

    def wait_active(self, ticket: int, state: str = "active") -> None:
        """Waits for ActiveState."""
        self.machine.wait_for(
            lambda: self.unit(ticket)["ActiveState"] == state, what=f"ticket {ticket} {state}"
        )

    def take_database_away(self) -> None:
        """Stops the embedded PostgreSQL, and whoever wants it up again gets it not."""
        self.machine.sh(f"mv {DATA}/postgresql {DATA}/postgresql.away")
        self.systemctl("stop", "mc-postgres.service")

    def bring_database_back(self) -> None:
        """Undoes that."""
        self.machine.sh(f"mv {DATA}/postgresql.away {DATA}/postgresql")
        self.systemctl("reset-failed", "mc-postgres.service", check=False)
        self.systemctl("start", "mc-postgres.service")

    def wait_turn(self, ticket: int, state: str, *, timeout: float = 60) -> None:
        """Waits for a turn state, as the database has it."""
        self.machine.wait_for(
            lambda: self.show(ticket)["turn_state"] == state,
            what=f"ticket {ticket} {state}",
            timeout=timeout,
        )

    # -- files and screen ------------------------------------------------------------------------

    def read(self, path: str) -> str:
        """A file of the machine; empty when there is none."""
        return self.machine.run(["cat", path], check=False).stdout

    def work(self, ticket: int) -> str:
        """The folder of a ticket without a repository."""
        return f"{STATE}/tickets/{ticket}/work"

    def pane_log(self, ticket: int) -> str:
        """Every byte the pane printed."""
        return self.read(f"{STATE}/tickets/{ticket}/pane.log")

    def sidecar(self, ticket: int) -> list[dict[str, Any]]:
        """The sidecar's lines."""
        return [
            json.loads(line)
            for line in self.read(f"{STATE}/tickets/{ticket}/sidecar.jsonl").splitlines()
        ]

    def hooks(self, ticket: int, name: str) -> list[dict[str, Any]]:
        """What the worker told under one hook's name."""
        return [line["data"] for line in self.sidecar(ticket) if line["hook"] == name]

    def screen(self, ticket: int) -> str:
        """What the pane shows."""
        return self.machine.run(
            ["tmux", "capture-pane", "-p", "-t", f"=ticket-{ticket}:"], check=False
        ).stdout

    def wait_screen(self, ticket: int, text: str, *, timeout: float = 30) -> None:
        """Waits until the pane shows `text`."""
        self.machine.wait_for(
            lambda: text in self.screen(ticket), what=f"{text!r} on the screen", timeout=timeout
        )

    def type(self, ticket: int, text: str) -> None:
        """Types into the pane and presses Enter, as somebody attached would."""
        self.machine.run(["tmux", "send-keys", "-t", f"=ticket-{ticket}:", "-l", text])
        self.machine.run(["sleep", "0.3"])  # a hand's pace: glued to the text, Enter is a newline
        self.machine.run(["tmux", "send-keys", "-t", f"=ticket-{ticket}:", "Enter"])

    def make_repository(self, path: str = REPOSITORY) -> str:
        """A git repository with one commit."""
        self.machine.sh(
            f"[ -d {path}/.git ] && exit 0; mkdir -p {path}; cd {path}; git init -q -b main;"
            " git config user.email op@example.org; git config user.name op;"
            " echo hello > README; git add README; git commit -qm first"
        )
        return path

    def login_link(self, ticket: int | None = None) -> str:
        """`ticketctl open`."""
        return self.ctl("open", *([str(ticket)] if ticket else [])).stdout.strip()

    def post(self, path: str, body: dict[str, Any]) -> dict[str, Any]:
        """What a program of the operator's asks the gateway for; what it says to a refusal is the error."""
        token = self.read(f"{STATE}/token").strip()
        program = (
            "import json, sys, urllib.error, urllib.request as u\n"
            "url, token, body = sys.argv[1:]\n"
            "asked = u.Request(url, body.encode(), {'Authorization': 'Bearer ' + token,"
            " 'Content-Type': 'application/json'})\n"
            "try:\n    print(u.urlopen(asked).read().decode())\n"
            "except urllib.error.HTTPError as error:\n    sys.exit(error.read().decode())\n"
        )
        argv = ["python3", "-c", program, f"{GATEWAY}{path}", token, json.dumps(body)]
        answer: dict[str, Any] = json.loads(self.machine.run(argv).stdout)
        return answer
