"""procfs.py and doctor_services.py: what the kernel says of processes."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

import pytest

from orchestrator import config as configuration
from orchestrator import doctor_services, procfs


def test_a_process_and_its_end() -> None:
    """Alive with a start; gone, or a zombie, it is neither."""
    process = subprocess.Popen(["sleep", "60"])
    assert procfs.is_alive(process.pid)
    assert int(procfs.started(process.pid)) > 0
    assert procfs.name(process.pid) == "sleep"
    assert procfs.agent_behind(process.pid) == process.pid == procfs.pane_pid(process.pid)
    process.kill()
    os.waitid(os.P_PID, process.pid, os.WEXITED | os.WNOWAIT)
    assert not procfs.is_alive(process.pid)
    process.wait()
    assert procfs.started(process.pid) == ""
    assert procfs.inner_pid(process.pid) == process.pid


STATUS = "Name:\tx\nNoNewPrivs:\t{}\nSeccomp:\t{}\n"
READ_ONLY = "20 1 0:1 / / ro,nosuid master:1 - ext4 /dev/x rw\n"


def proc(folder: Path, status: str, uid_map: str, mountinfo: str) -> Path:
    """What the kernel would say of process 7, and of us."""
    for pid, text in (("7", uid_map), ("self", "0 0 4294967295\n")):
        (folder / pid).mkdir()
        (folder / pid / "uid_map").write_text(text)
    (folder / "7/status").write_text(status)
    (folder / "self/status").write_text(
        "Seccomp:\t2\nSeccomp_filters:\t3\n" if "_filters" in status else ""
    )
    (folder / "7/mountinfo").write_text(mountinfo)
    return folder


@pytest.mark.parametrize(
    ("status", "uid_map", "mountinfo", "lacking"),
    [
        (STATUS.format(1, 2), "1000 1000 1\n", READ_ONLY, []),
        (
            STATUS.format(0, 0), "0 0 4294967295\n",
            READ_ONLY.replace(" ro,", " rw,"),
            ["NoNewPrivileges", "SystemCallFilter", "PrivateUsers", "ProtectSystem"],
        ),
        (STATUS.format(1, 0), "1000 1000 1\n", READ_ONLY, ["SystemCallFilter"]),
        (STATUS.format(1, "2\nSeccomp_filters:\t4"), "1000 1000 1\n", READ_ONLY, []),
        (
            STATUS.format(1, "2\nSeccomp_filters:\t3"), "1000 1000 1\n", READ_ONLY,
            ["SystemCallFilter"],
        ),
        (STATUS.format(1, 2), "1000 1000 1\n", "", ["ProtectSystem"]),
    ],
)  # fmt: skip
def test_what_is_not_in_force(
    tmp_path: Path, status: str, uid_map: str, mountinfo: str, lacking: list[str]
) -> None:
    """Each by its own sign, of a process that runs and of what one left that does not any more."""
    where = proc(tmp_path, status, uid_map, mountinfo)
    assert list(doctor_services.missing(where / "7", where)) == lacking
    config = configuration.load({"HOME": str(tmp_path), "XDG_RUNTIME_DIR": str(tmp_path / "run")})
    (where / "7/cgroup").write_text("0::/user.slice/app.slice/mc-backup.service\n")
    doctor_services.leave_copy(config, where / "7")
    copy = doctor_services.copy_of(config, "mc-backup.service")
    assert list(doctor_services.missing(copy, where)) == lacking


def test_only_a_service_leaves_its_copy(tmp_path: Path) -> None:
    """The same program run by hand says nothing of the service."""
    config = configuration.load({"HOME": str(tmp_path), "XDG_RUNTIME_DIR": str(tmp_path / "run")})
    where = proc(tmp_path, STATUS.format(1, 2), "1000 1000 1\n", READ_ONLY)
    for unit in ("session-3.scope", "mc-webgate.service", ""):
        (where / "7/cgroup").write_text(f"0::/user.slice/app.slice/{unit}\n")
        doctor_services.leave_copy(config, where / "7")
    assert not (tmp_path / "run/mission-control/confined").exists()
