"""What a machine takes from the host so that apt, pip and npm work as they do outside.

Only copies what exists: certificates, name resolution, the package tools' own configuration. It
knows no address of anything.
"""

from __future__ import annotations

import os
import re
import shutil
from pathlib import Path

#: Passed into every command run inside, when set outside. A value that is a file is copied to the
#: same place.
PASSED_VARIABLES = (
    "SSL_CERT_FILE",
    "SSL_CERT_DIR",
    "CURL_CA_BUNDLE",
    "GIT_SSL_CAINFO",
    "NODE_EXTRA_CA_CERTS",
    "PIP_CERT",
    "PIP_INDEX_URL",
    "PIP_EXTRA_INDEX_URL",
    "PIP_DEFAULT_TIMEOUT",
    "REQUESTS_CA_BUNDLE",
    "NPM_CONFIG_REGISTRY",
    "npm_config_registry",
    *(
        name
        for proxy in ("http", "https", "no")
        for name in (f"{proxy}_proxy", f"{proxy}_proxy".upper())
    ),
)

COPIED_FILES = ("/etc/pip.conf", "/etc/ssl/certs/ca-certificates.crt")
COPIED_FOLDERS = ("/usr/local/share/ca-certificates", "/etc/apt/auth.conf.d")

HOSTNAME = "box"  #: of every machine
OP_UID = 1000
OP_GID = 1000


def passed_environment() -> dict[str, str]:
    """Return the variables of this process that a command inside gets too."""
    return {name: os.environ[name] for name in PASSED_VARIABLES if os.environ.get(name)}


def apt_options() -> list[Path]:
    """Return apt's files that say how to fetch: those with Acquire settings and no hooks."""
    found = []
    for path in sorted(Path("/etc/apt/apt.conf.d").glob("*")):
        text = path.read_text(errors="replace")
        if "Acquire" in text and "Invoke" not in text:
            found.append(path)
    return found


def nameservers() -> str:
    """Return a resolv.conf that works from another network namespace too."""
    text = Path("/etc/resolv.conf").read_text()
    upstream = Path("/run/systemd/resolve/resolv.conf")
    if re.search(r"^nameserver\s+127\.", text, re.MULTILINE) and upstream.exists():
        return upstream.read_text()  # the stub on 127.0.0.53 is out of reach in there
    return text


def furnish(upper: Path) -> None:
    """Put the host's files into `upper`, the writable layer of a machine that is not running."""
    for source in map(Path, [*COPIED_FILES, *passed_environment().values()]):
        if source.is_absolute() and source.is_file():
            _copy(source, upper)
    for folder in map(Path, COPIED_FOLDERS):
        for source in folder.rglob("*"):
            if source.is_file():
                _copy(source, upper)
    for source in apt_options():
        _copy(source, upper)
    resolv_conf = _parents(upper, Path("/etc/resolv.conf"))
    resolv_conf.unlink(missing_ok=True)
    resolv_conf.write_text(nameservers())
    hosts = _parents(upper, Path("/etc/hosts"))
    hosts.write_text(Path("/etc/hosts").read_text() + f"127.0.1.1 {HOSTNAME}\n")
    npmrc = Path("~/.npmrc").expanduser()
    if npmrc.is_file():
        for home, owner in (("/root", 0), ("/home/op", OP_UID)):
            target = _parents(upper, Path(home) / ".npmrc", owner=owner)
            shutil.copyfile(npmrc, target)
            target.chmod(0o600)
            os.chown(target, owner, owner)


def _copy(source: Path, upper: Path) -> None:
    target = _parents(upper, source)
    if os.path.lexists(target) and (target.is_symlink() or not target.is_file()):
        target.unlink()  # a whiteout: it was removed inside
    shutil.copyfile(source, target)
    target.chmod(0o644)


def _parents(upper: Path, path: Path, *, owner: int = 0) -> Path:
    """Make the folders above `path` in an upper layer, with modes: they hide those below."""
    target = upper / path.relative_to("/")
    missing = [folder for folder in target.parents if folder != upper and upper in folder.parents]
    for folder in reversed(missing):
        if not folder.exists():
            folder.mkdir()
            private = folder.name == "root" or folder.parent.name == "home"
            folder.chmod(0o700 if private else 0o755)
            if folder.parent.name == "home":
                os.chown(folder, owner, owner)
    return target
