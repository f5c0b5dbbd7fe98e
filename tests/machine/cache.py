"""Where test machines live on disk, and the read-only layers they boot from.

A layer is a folder `tree/` that overlayfs can use as a lower directory, with the layers beneath it
named in `layer.json`. A base (a fresh Debian) is a layer on nothing; a snapshot is a layer on a
base. Layers appear by rename, whole or not at all, and are never written again.

What goes into a layer is `base.py`'s and `machine.py`'s business.
"""

from __future__ import annotations

import fcntl
import json
import os
import subprocess
import tempfile
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator

KEPT_LAYERS = 6  #: of one kind (`installed-trixie-…`), those besides the newest are removed


def cache_dir() -> Path:
    """Return the folder for all that is made here: `$MC_TEST_CACHE`, or a usual place."""
    if configured := os.environ.get("MC_TEST_CACHE"):
        path = Path(configured).absolute()
    elif os.geteuid() == 0:
        path = Path("/var/cache/mission-control-tests")
    else:
        path = Path(os.environ.get("XDG_CACHE_HOME") or "~/.cache").expanduser()
        path /= "mission-control-tests"
    path.mkdir(parents=True, exist_ok=True)
    return path


@contextmanager
def locked(name: str) -> Iterator[None]:
    """Hold the lock called `name` against every other process that uses the same cache."""
    folder = cache_dir() / "locks"
    folder.mkdir(exist_ok=True)
    with (folder / name).open("w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield


def remove_tree(path: Path) -> None:
    """Remove a folder with whatever odd files it holds, crossing no mount."""
    subprocess.run(["rm", "-rf", "--one-file-system", "--", str(path)], check=True)


@dataclass(frozen=True, slots=True)
class Layer:
    """A read-only folder to boot from."""

    path: Path
    below: tuple[Layer, ...] = ()  #: nearest first

    @property
    def key(self) -> str:
        """Its name in the cache: what it is, and a hash of what it was made from."""
        return self.path.name

    def lowerdirs(self) -> list[Path]:
        """Return the folders for overlayfs, the topmost first."""
        return [self.path / "tree", *(layer.path / "tree" for layer in self.below)]

    def hold(self) -> list[int]:
        """Keep this and those below from being pruned until the descriptors are closed."""
        held = []
        for layer in (self, *self.below):
            descriptor = os.open(
                layer.path / "in-use", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644
            )
            fcntl.flock(descriptor, fcntl.LOCK_SH)
            held.append(descriptor)
        return held


def release(held: list[int]) -> None:
    """Undo `Layer.hold`."""
    for descriptor in held:
        os.close(descriptor)


def layers_dir() -> Path:
    """Return the folder of the finished layers."""
    path = cache_dir() / "layers"
    path.mkdir(exist_ok=True)
    return path


def find_layer(key: str) -> Layer | None:
    """Return the finished layer called `key`, if there is one and all beneath it are there too."""
    path = layers_dir() / key
    try:
        below = json.loads((path / "layer.json").read_text())["below"]
    except FileNotFoundError:
        return None
    found = [find_layer(name) for name in below]
    layers = tuple(layer for layer in found if layer is not None)
    if len(layers) != len(below):
        return None
    os.utime(path)  # prune_layers keeps what was used last
    return Layer(path, layers)


@contextmanager
def new_layer(key: str, below: tuple[Layer, ...] = ()) -> Iterator[Path]:
    """Yield a folder to make `tree/` in; it becomes the layer `key` when the block ends well."""
    scratch = Path(tempfile.mkdtemp(prefix=f".{key}.", dir=layers_dir()))
    scratch.chmod(0o755)
    try:
        yield scratch
        (scratch / "layer.json").write_text(json.dumps({"below": [layer.key for layer in below]}))
        final = layers_dir() / key
        if final.exists():
            remove_tree(final)
        scratch.rename(final)
    finally:
        if scratch.exists():
            remove_tree(scratch)


def prune_layers(kind: str) -> None:
    """Remove the layers whose key begins with `kind`, but for those used last and those in use."""
    layers = sorted(layers_dir().glob(f"{kind}-*"), key=lambda path: path.stat().st_mtime)
    for path in layers[: -KEPT_LAYERS or None]:
        with (path / "in-use").open("w") as file:
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                continue
            doomed = path.with_name(f".{path.name}.doomed")
            path.rename(doomed)
        remove_tree(doomed)
