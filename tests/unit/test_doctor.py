"""doctor: what it sees of a machine that lacks something, and the bundle that tells nobody's secrets."""

from __future__ import annotations

import json
import os
import socket
import stat
import tarfile
from pathlib import Path

import pytest

from orchestrator import bundle, doctor_machine
from orchestrator import config as configuration
from orchestrator.doctor_machine import Check
from orchestrator.errors import ConfigError
from orchestrator.store import comments, events, messages, tickets
from orchestrator.store.db import Database

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
    assert (agents.verdict, agents.mend) == ("warn", found.mend)
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
