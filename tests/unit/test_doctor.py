"""doctor: what it sees of a machine that lacks something, and the bundle that tells nobody's secrets."""

from __future__ import annotations

import getpass
import json
import os
import socket
import stat
import tarfile
from dataclasses import dataclass
from pathlib import Path
from typing import Self

import pytest

from orchestrator import bundle, doctor, doctor_machine
from orchestrator import config as configuration
from orchestrator.doctor_machine import Check
from orchestrator.errors import ConfigError
from orchestrator.store import comments, events, messages, tickets
from orchestrator.store.db import Database
from orchestrator.systemd import UnitState

UID = os.getuid()


def proc(folder: Path, **sysctls: str) -> Path:
    """A /proc with these values in it; the name's first _ is a folder's end."""
    for name, value in sysctls.items():
        area, key = name.split("_", 1)
        path = folder / "sys" / ("fs/inotify" if area == "inotify" else area) / key
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(value + "\n")
    folder.mkdir(exist_ok=True)
    return folder


def test_the_user_bus_is_a_socket_of_ones_own(tmp_path: Path) -> None:
    """Missing, a plain file, somebody else's: each with what to do."""
    environ = {"XDG_RUNTIME_DIR": str(tmp_path)}
    missing = doctor_machine.user_bus(environ, UID)
    assert (missing.verdict, "dbus-user-session" in missing.mend) == ("bad", True)
    (tmp_path / "bus").write_text("")
    assert "is no socket" in doctor_machine.user_bus(environ, UID).found
    (tmp_path / "bus").unlink()
    with socket.socket(socket.AF_UNIX) as peer:
        peer.bind(str(tmp_path / "bus"))
        assert doctor_machine.user_bus(environ, UID).verdict == "ok"
        assert "another user's" in doctor_machine.user_bus(environ, UID + 1).found


@pytest.mark.parametrize(
    ("sysctls", "key", "value"),
    [
        ({"user_max_user_namespaces": "0"}, "user.max_user_namespaces", "15000"),
        ({"kernel_unprivileged_userns_clone": "0"}, "kernel.unprivileged_userns_clone", "1"),
        (
            {"kernel_apparmor_restrict_unprivileged_userns": "1"},
            "kernel.apparmor_restrict_unprivileged_userns",
            "0",
        ),
    ],
)
def test_user_namespaces(tmp_path: Path, sysctls: dict[str, str], key: str, value: str) -> None:
    """Each way in which a kernel refuses them is named, with the command that allows them.

    What gets one all the same, by a profile of AppArmor's, is found by trying.
    """
    forbidding = proc(tmp_path / "p", **sysctls)
    found = doctor_machine.user_namespaces(lambda: "the services", forbidding)
    assert (found.verdict, found.found) == (
        "bad",
        f"{key} = {next(iter(sysctls.values()))}: the services get none",
    )
    assert f"echo {key}={value} | sudo tee /etc/sysctl.d/" in found.mend
    agents = doctor_machine.user_namespaces(lambda: "isolated agents", forbidding)
    assert agents.verdict == "warn"
    if "apparmor" in key:  # a profile for bubblewrap alone is less than that for all programs
        assert "extra-profiles/bwrap-userns-restrict /etc/apparmor.d/" in agents.mend
    else:
        assert agents.mend == found.mend
    assert doctor_machine.user_namespaces(lambda: "", forbidding).verdict == "ok"


def test_user_namespaces_are_not_tried_where_nothing_forbids_them(tmp_path: Path) -> None:
    """Debian's settings, and Ubuntu's after the mend: no process is started for it."""
    fine = proc(
        tmp_path / "q", user_max_user_namespaces="15000", kernel_unprivileged_userns_clone="1",
        kernel_apparmor_restrict_unprivileged_userns="0",
    )  # fmt: skip
    assert doctor_machine.user_namespaces(lambda: pytest.fail("tried"), fine).verdict == "ok"


def test_the_clock() -> None:
    """Before this program was there: bad; far from the database's, or not synchronised: a warning."""
    now = 1_800_000_000.0
    assert doctor_machine.clock(1000.0, None, "yes").verdict == "bad"
    assert "60 s from the database's" in doctor_machine.clock(now, now - 60, "yes").found
    assert doctor_machine.clock(now, now, "no").verdict == "warn"
    assert doctor_machine.clock(now, now + 1, "yes").verdict == "ok"
    assert doctor_machine.clock(now, None, "").verdict == "ok"


def test_inotify_limits(tmp_path: Path) -> None:
    """What is used of them is counted over one's own processes; too little left is a warning."""
    folder = proc(tmp_path / "p", inotify_max_user_instances="128", inotify_max_user_watches="8192")
    for pid in (10, 11):
        (folder / f"{pid}/fd").mkdir(parents=True)
        (folder / f"{pid}/fdinfo").mkdir()
        (folder / f"{pid}/fd/3").symlink_to("anon_inode:inotify")
        (folder / f"{pid}/fd/4").symlink_to("/dev/null")
        (folder / f"{pid}/fdinfo/3").write_text("pos: 0\ninotify wd:1\ninotify wd:2\n")
    found = doctor_machine.inotify(UID, folder)
    assert (found.verdict, found.found) == ("ok", "2 instances and 4 watches of yours")
    assert doctor_machine.inotify(UID + 1, folder).found.startswith("0 instances")
    proc(folder, inotify_max_user_instances="9")
    assert "fs.inotify.max_user_instances=1024" in doctor_machine.inotify(UID, folder).mend
    proc(folder, inotify_max_user_instances="128", inotify_max_user_watches="100")
    assert "4 of 100 used" in doctor_machine.inotify(UID, folder).found
    assert doctor_machine.inotify(UID).verdict in {"ok", "warn"}, "on this machine"


@dataclass
class Manager:
    """The user's manager, as far as doctor asks it."""

    active: str = "active"
    release: str = "257.1"

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        pass

    def version(self) -> str:
        """Of systemd."""
        return self.release

    def system_state(self) -> str:
        """As is-system-running."""
        return "running"

    def unit(self, _: str) -> UnitState:
        """Each is the same."""
        return UnitState("loaded", self.active, "", job=False, unit_file="enabled")


@pytest.fixture
def lacking(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Lacking:
    """A machine on which nothing is installed, and what one can have it lack."""
    return Lacking(tmp_path, monkeypatch)


class Lacking:
    """Looks at one requirement of a machine that lacks it."""

    def __init__(self, folder: Path, patch: pytest.MonkeyPatch) -> None:
        self.folder, self.patch = folder, patch
        self.programs = folder / "bin"
        self.programs.mkdir()
        patch.setenv("PATH", str(self.programs))
        patch.setattr(doctor, "LINGER", folder / "linger")
        patch.setattr(doctor, "CGROUPS", folder / "cgroup")
        self.manager(Manager())

    def manager(self, manager: Manager) -> None:
        """What systemd says."""
        self.patch.setattr(doctor, "UserManager", lambda: manager)

    def program(self, name: str, text: str) -> None:
        """One that prints that, or fails where it is empty."""
        path = self.programs / name
        path.write_text(f"#!/bin/sh\necho '{text}'\n" if text else "#!/bin/sh\nexit 1\n")
        path.chmod(0o755)

    def look(self, name: str, **environ: str) -> Check:
        """That one check."""
        found = configuration.load(
            {"HOME": str(self.folder), "XDG_RUNTIME_DIR": str(self.folder), **environ}
        )
        return doctor._guarded(getattr(doctor, name), found)


def test_each_requirement_says_what_is_wrong_and_what_mends_it(lacking: Lacking) -> None:
    """In the words of somebody who is called at two in the morning: one sentence, one command."""
    lacking.manager(Manager(release="247.3", active="failed"))
    seen = {
        name: lacking.look(name, MC_GATEWAY_LISTEN="127.0.0.1:1")
        for name in ("_systemd", "_linger", "_delegation", "_tmux_version", "_tmux_server", "_git", "_postgres",
                     "_gateway", "_claude")
    }  # fmt: skip
    told = {name: (check.verdict, check.found, check.mend) for name, check in seen.items()}
    user = getpass.getuser()
    assert told["_systemd"] == (
        "bad", "version 247.3", "Version 252 or later is needed: Debian 12."
    )  # fmt: skip
    assert told["_linger"] == (
        "bad", "tickets end when you log out", f"sudo loginctl enable-linger {user}"
    )  # fmt: skip
    assert told["_delegation"][0] == "warn"
    assert "cgroups of version 1" in told["_delegation"][1]
    assert "systemd.unified_cgroup_hierarchy=1" in told["_delegation"][2]
    assert told["_tmux_version"] == ("bad", "not installed", "sudo apt install tmux")
    assert told["_tmux_server"][2] == "sudo apt install tmux"
    assert told["_git"] == ("bad", "not installed", "sudo apt install git")
    assert told["_postgres"][0] == "bad"
    assert "PostgreSQL does not answer" in told["_postgres"][1]
    assert told["_postgres"][2].startswith("systemctl --user start mc-postgres.service; why")
    assert told["_gateway"][1] == "nothing answers on 127.0.0.1:1: Connection refused"
    assert told["_gateway"][2].startswith("systemctl --user start mc-webgate.socket; if it fails")
    assert told["_claude"][:2] == ("warn", "'claude' was not found")
    assert told["_claude"][2].startswith("npm install -g @anthropic-ai/claude-code")


def test_controllers_that_are_not_handed_on(lacking: Lacking) -> None:
    """Named, with the drop-in that hands them on; all there: fine."""
    mine = lacking.folder / f"cgroup/user.slice/user-{UID}.slice/user@{UID}.service"
    mine.mkdir(parents=True)
    (lacking.folder / "cgroup/cgroup.controllers").write_text("cpu io memory pids\n")
    (mine / "cgroup.controllers").write_text("memory pids\n")
    found = lacking.look("_delegation")
    assert (found.verdict, found.found.partition(":")[0]) == (
        "warn", "no cpu controller for your units",
    )  # fmt: skip
    assert "Delegate=cpu memory pids io\\n' | sudo tee /etc/systemd/system/user@" in found.mend
    (mine / "cgroup.controllers").write_text("cpu memory pids\n")
    assert lacking.look("_delegation").verdict == "ok"


def test_a_tmux_server_that_is_not_ours_or_does_not_answer(lacking: Lacking) -> None:
    """An old tmux, another server on our socket, ours hung, ours ended: each its own sentence."""
    lacking.program("tmux", "tmux 2.9")
    assert "3.3 or later" in lacking.look("_tmux_version").mend
    lacking.program("tmux", "tmux 3.5a")
    for active, up, said, mend in (
        ("inactive", True, "another tmux server has the socket 'default'", "tmux kill-server"),
        ("active", False, "does not answer on socket default", "restart tmux-mc.service"),
        (
            "failed",
            False,
            "tmux-mc.service is failed: no ticket starts",
            "start tmux-mc.service; why",
        ),
    ):
        lacking.manager(Manager(active=active))
        lacking.patch.setattr("orchestrator.tmux.Server.is_up", lambda _, up=up: up)
        found = lacking.look("_tmux_server")
        assert found.verdict == "bad"
        assert said in found.found
        assert mend in found.mend


def test_a_port_that_somebody_else_has(lacking: Lacking) -> None:
    """Whose it is can be asked, and another one be taken."""
    lacking.manager(Manager(active="inactive"))
    with socket.create_server(("127.0.0.1", 0)) as there:
        listen = f"127.0.0.1:{there.getsockname()[1]}"
        found = lacking.look("_gateway", MC_GATEWAY_LISTEN=listen)
    assert found.found == f"something else listens on {listen}"
    assert f"ss -ltnp | grep {listen}" in found.mend


def test_a_claude_that_is_too_old_or_broken(lacking: Lacking) -> None:
    """Not taken for one that works."""
    (lacking.folder / ".local/bin").mkdir(parents=True)
    lacking.program("claude", "1.0.3 (Claude Code)")
    found = lacking.look("_claude")
    assert (found.verdict, "older than 2.1" in found.found) == ("warn", True)
    assert found.mend == f"{lacking.programs}/claude update"
    lacking.program("claude", "")
    found = lacking.look("_claude")
    assert (found.verdict, found.found) == ("warn", f"{lacking.programs}/claude gives no version")
    lacking.program("claude", "2.1.197 (Claude Code)")
    assert lacking.look("_claude").verdict == "ok"


def test_a_disk_that_is_nearly_full(lacking: Lacking) -> None:
    """What is no longer used, and what takes most."""
    lacking.patch.setattr(doctor, "MIN_FREE_BYTES", 1 << 62)
    found = lacking.look("_disk")
    assert found.verdict == "warn"
    assert "GiB free for" in found.found
    assert found.mend.startswith("ticketctl gc; what takes most: du -xh")


def test_keys_that_others_can_read(lacking: Lacking) -> None:
    """Said before a ticket refuses to start."""
    path = lacking.folder / ".config/mission-control/agent.env"
    path.parent.mkdir(parents=True)
    path.write_text("A=1\n")
    path.chmod(0o644)
    found = lacking.look("_keys")
    assert (found.verdict, found.mend) == ("bad", f"chmod 600 {path}")


SECRETS = {
    "agent.env": "sk-ant-api03-abcdefghijkl", "agent.env, of no known look": "correct horse battery",
    "token": "Tq3tokenoftheproduct", "ntfy token": "tk_12345678", "ntfy topic": "my-private-topic",
    "database password": "pgsecret77", "title": "Secret Title Of Mine", "message": "please fix the payroll",
    "prompt": "prompt about the merger", "comment": "comment about the boss", "event": "what the agent said",
    "argument": "--api-key=argument99",
}  # fmt: skip


def test_a_bundle_has_no_secret(
    tmp_path: Path, database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    """No key, token, password, message, title, prompt or setting is in it, wherever it came from."""
    ticket = tickets.create(database, title=SECRETS["title"], prompt=SECRETS["prompt"])
    messages.enqueue(database, ticket.id, SECRETS["message"])
    comments.add(database, ticket.id, SECRETS["comment"])
    events.record(database, ticket.id, "turn_end", last_assistant_message=SECRETS["event"])
    folder = tmp_path / ".config/mission-control"
    folder.mkdir(parents=True)
    (folder / "agent.env").write_text(
        f"A={SECRETS['agent.env']}\nB='{SECRETS['agent.env, of no known look']}'\n"
    )
    (folder / "config.toml").write_text(
        f'[notify]\nntfy_token = "{SECRETS["ntfy token"]}"\nntfy_url = "https://ntfy.sh/{SECRETS["ntfy topic"]}"\n'
        f'[claude]\nargs = ["{SECRETS["argument"]}"]\n[isolation]\nmode = "off"\n'
    )
    # a journal in which our own services say all of it, but for what only agents know
    said = [*(text for what, text in SECRETS.items() if what != "event"), f"postgresql://me:{SECRETS['database password']}@box/db", "GET /login?code=abc123",
            "Authorization: Bearer xyz.abc", "password = hunter22", f"in {tmp_path}/src"]  # fmt: skip
    program = tmp_path / "bin/journalctl"
    program.parent.mkdir()
    lines = [
        json.dumps(
            {
                "__REALTIME_TIMESTAMP": "1800000000000000",
                "_SYSTEMD_USER_UNIT": unit,
                "PRIORITY": "3",
                "MESSAGE": f"said: {text}",
            }
        )
        for unit in ("mc-dispatch.service", "ticket@1.service")
        for text in said
    ]
    program.write_text(
        "#!/bin/sh\ncat <<'END'\n" + "\n".join([*lines, "no JSON", "{}"]) + "\nEND\n"
    )
    program.chmod(0o755)
    monkeypatch.setenv("PATH", f"{program.parent}:{os.environ['PATH']}")
    monkeypatch.setenv("HOME", str(tmp_path))
    environ = {
        "HOME": str(tmp_path),
        "XDG_RUNTIME_DIR": "/run/user/1",
        "MC_DATABASE_URL": f"{database._dsn} password={SECRETS['database password']}",
    }
    found = configuration.resolve(environ)
    found.config.state_dir.mkdir(parents=True)
    found.config.token_path.write_text(SECRETS["token"] + "\n")
    path = tmp_path / "report.tar.gz"
    check = Check("claude", "ok", f"2.1 ({tmp_path}/bin/claude)")
    names = bundle.write(path, found.config, [check], found.settings, "1.2.3")
    with tarfile.open(path) as tar:
        inside = {
            Path(m.name).name: (tar.extractfile(m) or path.open("rb")).read().decode() for m in tar
        }
    whole = "\n".join(inside.values())
    for what, secret in SECRETS.items():
        assert secret not in whole, what
    for secret in ("abc123", "xyz.abc", "hunter22", "argument99", str(tmp_path)):
        assert secret not in whole, secret
    assert list(inside) == names
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    # and it is of use
    assert '"mission-control": "1.2.3"' in inside["versions.json"]
    assert '"0001_tickets"' in inside["database.json"]
    assert (
        '"key": "isolation.mode",\n  "value": "off",\n  "source": "config.toml:7:1"'
        in inside["settings.json"]
    )
    assert "mc-dispatch.service 3: said: " in inside["journal.txt"]
    assert "ticket@1.service 3\n" in inside["journal.txt"]
    assert "2.1 (~/bin/claude)" in inside["checks.json"]
    with pytest.raises(ConfigError, match="File exists"):
        bundle.write(path, found.config, [], found.settings, "1.2.3")


def test_a_bundle_is_made_without_a_database(tmp_path: Path) -> None:
    """When everything is broken it is wanted most."""
    environ = {"HOME": str(tmp_path), "XDG_RUNTIME_DIR": str(tmp_path)}
    found = configuration.resolve(environ)
    bundle.write(tmp_path / "b.tar.gz", found.config, [], found.settings, "1")
    with tarfile.open(tmp_path / "b.tar.gz") as tar:
        member = tar.extractfile("mission-control/database.json")
        assert member is not None
        assert b"PostgreSQL does not answer" in member.read()
