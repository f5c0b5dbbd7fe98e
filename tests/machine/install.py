"""The product installed: a machine on which ./install.sh has run, kept as a layer.

The layer is named after a hash of the product's files, so that it is made anew when one changes and
only then. What is tried on it is the test files' business.
"""

from __future__ import annotations

import hashlib
import subprocess
from pathlib import Path

from tests.machine.base import DEFAULT_SUITE, base_key, ensure_base
from tests.machine.cache import Layer, cache_dir, find_layer, locked, prune_layers
from tests.machine.commands import MachineError
from tests.machine.machine import Machine

REPOSITORY = Path(__file__).resolve().parents[2]
CHECKOUT = "/home/op/mission-control"  #: where it lies inside
NOT_PRODUCT = (
    "tests/",
    "examples/",
    "benchmarks/",
    "release/",
    ".ci/",
    "mkdocs.yml",
)  #: no part of the hash: nothing of it is installed, nor of what install.sh compares
INSTALL_TIMEOUT_S = 1200


def repository_files() -> list[str]:
    """List what a clone as things stand would hold: tracked, or new and not ignored."""
    command = ["git", "-c", f"safe.directory={REPOSITORY}", "ls-files", "-z"]
    command += ["--cached", "--others", "--exclude-standard"]
    listed = subprocess.run(
        command, cwd=REPOSITORY, check=True, capture_output=True, text=True
    ).stdout
    names = {name for name in listed.split("\0") if name}
    return sorted(name for name in names if (REPOSITORY / name).is_file())


def product_hash() -> str:
    """Return a hash of every file that can change what gets installed."""
    digest = hashlib.sha256()
    for name in repository_files():
        if not name.startswith(NOT_PRODUCT):
            path = REPOSITORY / name
            content = hashlib.sha256(path.read_bytes()).hexdigest()
            digest.update(f"{name}\0{path.stat().st_mode & 0o111}\0{content}\n".encode())
    return digest.hexdigest()[:12]


def copy_checkout(machine: Machine) -> None:
    """Put the repository as it stands at `CHECKOUT`."""
    machine.copy_in(REPOSITORY, CHECKOUT, names=repository_files())


def ensure_installed(suite: str = DEFAULT_SUITE) -> Layer:
    """Return the layer with the product on it; run its installer now if it is not in the cache.

    What the installer printed is in `install.log` of the cache's logs folder.
    """
    if not (REPOSITORY / "install.sh").exists():
        raise MachineError("there is no install.sh to run")
    base = base_key(suite).rpartition("-")[2]
    key = f"installed-{suite}-{product_hash()}-{base}"
    with locked(f"installed-{suite}"):
        if layer := find_layer(key):
            return layer
        with Machine(ensure_base(suite), network="internet") as machine:
            machine.boot()
            copy_checkout(machine)
            argv = ["env", f"--chdir={CHECKOUT}", "./install.sh"]
            done = machine.run(argv, timeout=INSTALL_TIMEOUT_S, check=False)
            log = cache_dir() / "logs" / f"install-{suite}.log"
            log.parent.mkdir(exist_ok=True)
            log.write_text(f"{done.stdout}\n--- stderr\n{done.stderr}")
            if done.returncode:
                with log.open("a") as file:
                    file.write(f"\n--- journal\n{machine.journal()}")
                tail = f"{done.stdout[-3000:]}\n{done.stderr[-3000:]}"
                raise MachineError(
                    f"install.sh ended with {done.returncode} on {suite}; all of it, and the "
                    f"journal, is in {log}\n{tail}"
                )
            layer = machine.snapshot(key)
        prune_layers(f"installed-{suite}")
        return layer
