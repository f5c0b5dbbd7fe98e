"""A fresh Debian (or Ubuntu), as its installer would leave a minimal one: the layer every machine starts from.

It has systemd, git, sudo and an ordinary user, and none of what the product's install.sh has to
install itself. Linger is off. Nothing in it is particular to the host; `host.py` adds that at each
boot.
"""

from __future__ import annotations

import hashlib
import json
import re
import shlex
import subprocess
from pathlib import Path

from tests.machine import host
from tests.machine.cache import Layer, find_layer, locked, new_layer, prune_layers

DEFAULT_SUITE = "trixie"
UBUNTU_SUITES = {"noble"}  #: their archives and keys are mmdebstrap's and ubuntu-keyring's to know

PACKAGES = (
    "systemd",
    "systemd-sysv",
    "dbus",
    "libpam-systemd",
    "sudo",
    "ca-certificates",
    "git",
    "iproute2",
)

#: What an installer of that release leaves besides, and its smallest variant lacks.
ALSO = {"bookworm": ("procps",), "noble": ("apt",)}

#: Run by a shell in the new tree, line by line.
RECIPE = (
    f"groupadd --gid {host.OP_GID} op",
    f"useradd --uid {host.OP_UID} --gid {host.OP_GID} --create-home --shell /bin/bash op",
    "echo 'op ALL=(ALL) NOPASSWD: ALL' >/etc/sudoers.d/op && chmod 0440 /etc/sudoers.d/op",
    # each machine gets its own at its first boot
    "rm -f /var/lib/dbus/machine-id && : >/etc/machine-id && rm -f /etc/hostname",
    # they would fetch lists at the first boot and hold dpkg's lock against the test
    "systemctl mask apt-daily.timer apt-daily-upgrade.timer",
    # the journal must outlive a power cut, that tests may read it
    "mkdir -p /var/log/journal",
    # a throw-away tree need not survive the host's power failure: halves the time of apt-get
    "echo force-unsafe-io >/etc/dpkg/dpkg.cfg.d/unsafe-io",
)


def base_key(suite: str) -> str:
    """Name the layer: the suite, and a hash of all that decides what is in it."""
    ingredients = json.dumps([suite, PACKAGES, RECIPE, 1, *ALSO.get(suite, ())])
    return f"base-{suite}-{hashlib.sha256(ingredients.encode()).hexdigest()[:12]}"


def ensure_base(suite: str = DEFAULT_SUITE) -> Layer:
    """Return the base of `suite`, built now if it is not in the cache (half a minute)."""
    key = base_key(suite)
    with locked(f"base-{suite}"):
        if layer := find_layer(key):
            return layer
        with new_layer(key) as folder:
            _build(suite, folder)
        layer = find_layer(key)
        assert layer is not None
        prune_layers(f"base-{suite}")
        return layer


def _build(suite: str, folder: Path) -> None:
    wanted = ",".join((*PACKAGES, *ALSO.get(suite, ())))
    argv = ["mmdebstrap", "--variant=minbase", f"--include={wanted}"]
    argv += [f"--aptopt={path}" for path in host.apt_options()]
    argv += [f'--customize-hook=chroot "$1" sh -euc {shlex.quote(line)}' for line in RECIPE]
    argv += [suite, str(folder / "tree")]
    if suite in UBUNTU_SUITES:
        argv.insert(2, "--components=main,universe")
    elif sources := host_sources(suite):
        source_file = folder / f"debian.{'sources' if 'Types:' in sources else 'list'}"
        source_file.write_text(sources)
        argv.append(str(source_file))
    log = folder / "build.log"
    with log.open("wb") as output:
        done = subprocess.run(
            argv, stdin=subprocess.DEVNULL, stdout=output, stderr=output, check=False
        )
    if done.returncode:
        raise RuntimeError(f"mmdebstrap could not build {suite}:\n{log.read_text()[-4000:]}")


def host_sources(suite: str) -> str:
    """Return the host's own Debian archives, turned to `suite`; empty for mmdebstrap's defaults.

    A stanza counts when it is of the host's release itself, its updates or its security fixes.
    """
    release = dict(
        re.findall(r'^(\w+)="?([^"\n]*)', Path("/etc/os-release").read_text(), re.MULTILINE)
    )
    codename = release.get("VERSION_CODENAME")
    if release.get("ID") != "debian" or not codename:
        return ""
    wanted = {codename, f"{codename}-updates", f"{codename}-security"}
    stanzas: list[str] = []
    for path in sorted(Path("/etc/apt/sources.list.d").glob("*.sources")):
        for stanza in re.split(r"\n\s*\n", path.read_text()):
            fields = dict(re.findall(r"^([\w-]+):\s*(.*)$", stanza, re.MULTILINE))
            suites = fields.get("Suites", "").split()
            if "main" in fields.get("Components", "").split() and suites and wanted >= set(suites):
                lines = [line for line in stanza.splitlines() if line and not line.startswith("#")]
                stanzas.append("\n".join(re.sub(rf"\b{codename}\b", suite, line) for line in lines))
    if stanzas:
        return "\n\n".join(stanzas) + "\n"
    lines = []
    for path in [
        Path("/etc/apt/sources.list"),
        *sorted(Path("/etc/apt/sources.list.d").glob("*.list")),
    ]:
        for line in path.read_text().splitlines() if path.exists() else ():
            parts = re.sub(r"\[[^]]*\]", "", line).split()
            if len(parts) > 3 and parts[0] == "deb" and parts[2] in wanted and "main" in parts:
                lines.append(re.sub(rf"\b{codename}\b", suite, line))
    return "".join(f"{line}\n" for line in lines)
