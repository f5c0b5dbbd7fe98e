"""A machine in full emulation, for what a container on this host cannot have: cgroup controllers.

Where the host's cgroups are of version 1, a machine of tests/machine accepts `MemoryMax=` and enforces
nothing. qemu, emulating in software, boots Debian's own kernel in under a minute. It gets a script, and
gives back what that printed; there is no more of an interface.
"""

from __future__ import annotations

import re
import shutil
import subprocess
import tempfile
from pathlib import Path

from tests.machine.cache import Layer, find_layer, locked
from tests.machine.machine import Machine

QEMU = "qemu-system-x86_64"
KERNEL = "linux-image-cloud-amd64"
MARK = "DRILL "  # before each line that the script wants to be heard
ROOM_BYTES = 1 << 30
_UNIT = """\
[Unit]
Description=The drill
After=multi-user.target user@1000.service
Wants=user@1000.service
[Service]
Type=oneshot
ExecStart=/bin/bash /drill.sh
ExecStopPost=/bin/systemctl --no-block poweroff
StandardOutput=tty
StandardError=tty
TTYPath=/dev/ttyS0
[Install]
WantedBy=multi-user.target
"""


def why_not() -> str:
    """Why none can run here; empty when it can."""
    return "" if shutil.which(QEMU) else f"{QEMU} is not installed"


def run(
    installed: Layer, script: str, *, memory_mb: int = 2048, timeout_s: float = 900
) -> list[str]:
    """Boots with the product installed, runs a script as root, and powers off.

    Returns what the script printed behind MARK, line by line.
    """
    layer = _with_kernel(installed)
    with tempfile.TemporaryDirectory(prefix="mc-emulated-") as name:
        folder = Path(name)
        kernel, initrd, image = _image(layer, folder, script)
        argv = [
            QEMU, "-accel", "tcg,thread=multi", "-cpu", "max", "-m", f"{memory_mb}M", "-smp", "2",
            "-nographic", "-no-reboot", "-nic", "none", "-kernel", str(kernel), "-initrd", str(initrd),
            "-append", "root=/dev/vda rw console=ttyS0 systemd.unified_cgroup_hierarchy=1 quiet",
            "-drive", f"file={image},format=raw,if=virtio,cache=unsafe",
        ]  # fmt: skip
        done = subprocess.run(
            argv, stdin=subprocess.DEVNULL, capture_output=True, timeout=timeout_s, check=False
        )
    console = done.stdout.decode("utf-8", "replace").replace("\r", "")
    said = [line.partition(MARK)[2] for line in console.splitlines() if MARK in line]
    if not said:
        raise RuntimeError(f"the machine said nothing:\n{console[-4000:]}\n{done.stderr.decode()}")
    return said


def _with_kernel(installed: Layer) -> Layer:
    key = f"emulated-{installed.key}"
    with locked("emulated"):
        if layer := find_layer(key):
            return layer
        with Machine(installed, network="internet") as machine:
            machine.boot()
            install = f"DEBIAN_FRONTEND=noninteractive apt-get install -qy --no-install-recommends {KERNEL} initramfs-tools"
            machine.run(["sh", "-c", f"apt-get -q update && {install}"], user="root", timeout=900)
            return machine.snapshot(key)


def _image(layer: Layer, folder: Path, script: str) -> tuple[Path, Path, Path]:
    """Kernel, initial RAM disk and disk of a layer, with the script to run."""
    extra, merged, image = folder / "extra", folder / "merged", folder / "disk.img"
    for path in (extra / "etc/systemd/system/multi-user.target.wants", merged):
        path.mkdir(parents=True)
    (extra / "drill.sh").write_text(script)
    (extra / "etc/systemd/system/drill.service").write_text(_UNIT)
    (extra / "etc/systemd/system/multi-user.target.wants/drill.service").symlink_to(
        "../drill.service"
    )
    # a login prompt begins by hanging up the terminal, and with it whatever the drill has still to say
    (extra / "etc/systemd/system/serial-getty@ttyS0.service").symlink_to("/dev/null")
    lower = ":".join(map(str, [extra, *layer.lowerdirs()]))
    subprocess.run(
        ["mount", "-t", "overlay", "-o", f"ro,lowerdir={lower}", "overlay", str(merged)], check=True
    )
    try:
        kernel, initrd = (
            Path(
                shutil.copy(next(iter(sorted((merged / "boot").glob(f"{kind}-*")))), folder / kind)
            )
            for kind in ("vmlinuz", "initrd.img")
        )
        used = subprocess.run(
            ["du", "-sxB1", str(merged)], capture_output=True, text=True, check=True
        )
        size = int(re.split(r"\s", used.stdout)[0]) + ROOM_BYTES
        subprocess.run(
            ["mke2fs", "-q", "-t", "ext4", "-d", str(merged), str(image), f"{size >> 10}k"],
            check=True,
        )
    finally:
        subprocess.run(["umount", str(merged)], check=True)
    return kernel, initrd, image
