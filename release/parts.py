"""What the program consists of besides itself: libraries from PyPI, browser code from npm.

Of the libraries, those that are installed here with it, in these versions: what pip would choose
today. Without those that only tests use. Debian's packages are Debian's to list.
"""

from __future__ import annotations

import base64
import json
from collections.abc import Iterator
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path
from typing import Literal

from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

PROGRAM = "mission-control"
LOCK = Path(__file__).resolve().parents[1] / "webgate/npm/package-lock.json"
_LICENCES = "License :: OSI Approved :: "


@dataclass(frozen=True, slots=True, kw_only=True)
class Part:
    """A piece of software of others."""

    kind: Literal["pypi", "npm"]
    name: str
    version: str
    licence: str  #: an SPDX expression, or what its makers wrote; empty: nothing
    sha512: str = ""  #: of the npm package's archive, hexadecimal


def libraries() -> list[Part]:
    """Everything that the program needs to run, by name."""
    found: dict[str, Part] = {}
    waiting = [PROGRAM]
    while waiting:
        distribution = metadata.distribution(waiting.pop())
        for name in _needs(distribution):
            if name not in found:
                found[name] = _library(name)
                waiting.append(name)
    return sorted(found.values(), key=lambda part: part.name)


def _needs(distribution: metadata.Distribution) -> Iterator[str]:
    for line in distribution.requires or ():
        requirement = Requirement(line)
        if requirement.marker is None or requirement.marker.evaluate({"extra": ""}):
            yield canonicalize_name(requirement.name)


def _library(name: str) -> Part:
    about = metadata.metadata(name)
    classifiers = about.get_all("Classifier") or []
    said = [about[key] for key in ("License-Expression", "License") if key in about]
    licence = said[0] if said else ""
    if not licence or "\n" in licence:  # some put the whole text there
        named = [line for line in classifiers if line.startswith(_LICENCES)]
        licence = named[0].removeprefix(_LICENCES) if named else ""
    return Part(kind="pypi", name=name, version=about["Version"], licence=licence)


def browser_code(lock: Path = LOCK) -> list[Part]:
    """What the page loads that is not ours, by name."""
    packages = json.loads(lock.read_text(encoding="utf-8"))["packages"]
    return [
        Part(
            kind="npm",
            name=path.rpartition("node_modules/")[2],
            version=package["version"],
            licence=package.get("license", ""),
            sha512=base64.b64decode(package["integrity"].removeprefix("sha512-")).hex(),
        )
        for path, package in sorted(packages.items())
        if path and not package.get("dev")
    ]
