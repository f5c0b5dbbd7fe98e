"""Whether test machines can run here, and if not, why."""

from __future__ import annotations

import functools
import os
import shutil
import subprocess
import tempfile

from tests.machine.cache import cache_dir
from tests.machine.cgroup import cgroup_root

#: program: the Debian package that has it
PROGRAMS = {
    "mmdebstrap": "mmdebstrap",
    "systemd-nspawn": "systemd-container",
    "nsenter": "util-linux",
    "unshare": "util-linux",
    "ip": "iproute2",
    "pasta": "passt",
    "tar": "tar",
}


@functools.cache
def why_not() -> str | None:
    """Return the reason why no machine can run here, in one line, or None."""
    if os.geteuid() != 0:
        return "test machines need root"
    for program, package in PROGRAMS.items():
        if shutil.which(program) is None:
            return f"test machines need {program} (apt-get install {package})"
    if cgroup_root() is None:
        return (
            "test machines need the cgroup v2 hierarchy at /sys/fs/cgroup or /sys/fs/cgroup/unified"
        )
    return _why_no_overlay()


def _why_no_overlay() -> str | None:
    with tempfile.TemporaryDirectory(dir=cache_dir()) as folder:
        for name in ("lower", "upper", "work", "root"):
            os.mkdir(f"{folder}/{name}")
        options = f"lowerdir={folder}/lower,upperdir={folder}/upper,workdir={folder}/work"
        mount = [
            "mount",
            "-t",
            "overlay",
            "-o",
            f"{options},redirect_dir=on",
            "overlay",
            f"{folder}/root",
        ]
        tried = subprocess.run(
            ["unshare", "--mount", "--", *mount], capture_output=True, text=True, check=False
        )
    if tried.returncode:
        return f"test machines need overlayfs on {cache_dir()}: {tried.stderr.splitlines()[0]}"
    return None
