"""procfs.py and doctor_services.py: what the kernel says of processes."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

import pytest

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
    (folder / "7/mountinfo").write_text(mountinfo)
    return folder


@pytest.mark.parametrize(
    ("unit", "status", "uid_map", "mountinfo", "lacking"),
    [
        ("mc-ingest.service", STATUS.format(1, 2), "1000 1000 1\n", READ_ONLY, []),
        (
            "mc-ingest.service", STATUS.format(0, 0), "0 0 4294967295\n",
            READ_ONLY.replace(" ro,", " rw,"),
            ["NoNewPrivileges", "SystemCallFilter", "PrivateUsers", "ProtectSystem"],
        ),
        ("mc-dispatch.service", STATUS.format(1, 2), "0 0 4294967295\n", "", []),
        ("mc-dispatch.service", STATUS.format(1, 0), "0 0 4294967295\n", "", ["SystemCallFilter"]),
        ("mc-webgate.service", STATUS.format(1, 2), "1000 1000 1\n", "", ["ProtectSystem"]),
    ],
)  # fmt: skip
def test_what_is_not_in_force(
    tmp_path: Path, unit: str, status: str, uid_map: str, mountinfo: str, lacking: list[str]
) -> None:
    """Each by its own sign; who has to look outside is not asked for namespaces."""
    where = proc(tmp_path, status, uid_map, mountinfo)
    assert list(doctor_services.missing(unit, 7, where)) == lacking
