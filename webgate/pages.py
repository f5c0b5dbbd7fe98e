"""Pages, rendered on the server from templates/; and the static files beside this module.

Every value is escaped; a name the template does not get is an error, not an empty string. What the
page does afterwards is in static/*.js.
"""

from __future__ import annotations

import hashlib
from datetime import UTC, datetime
from functools import cache
from pathlib import Path
from typing import Any

from orchestrator import templating
from orchestrator.config import share_path

STATIC = Path(__file__).parent / "static"
TYPES = {
    ".css": "text/css; charset=utf-8",
    ".js": "text/javascript; charset=utf-8",
    ".mjs": "text/javascript; charset=utf-8",
    ".svg": "image/svg+xml",
    ".webmanifest": "application/manifest+json",
}


@cache
def static_files() -> dict[str, Path]:
    """Everything that may be served, by its name below static/: no request ever makes a path."""
    return {
        path.relative_to(STATIC).as_posix(): path
        for path in sorted(STATIC.rglob("*"))
        if path.suffix in TYPES and path.is_file()
    }


@cache
def static_version() -> str:
    """Changes with any static file, and stands in their addresses, so that they may be cached."""
    digest = hashlib.sha256()
    for name, path in static_files().items():
        digest.update(name.encode() + b"\0" + path.read_bytes())
    return digest.hexdigest()[:16]


def age(at: datetime, now: datetime | None = None) -> str:
    """How long ago, in one unit."""
    seconds = max(0, int(((now or datetime.now(UTC)) - at).total_seconds()))
    for size, name in ((86400, "d"), (3600, "h"), (60, "min")):
        if seconds >= size:
            return f"{seconds // size} {name}"
    return "now"


def size(count: int) -> str:
    """Bytes, for people."""
    amount, name = float(count), "B"
    for larger in ("KiB", "MiB", "GiB", "TiB"):
        if amount < 1024:
            break
        amount, name = amount / 1024, larger
    return f"{amount:.1f} {name}" if amount < 10 and name != "B" else f"{amount:.0f} {name}"


@cache
def _environment() -> templating.Environment:
    environment = templating.pages(share_path("templates"))
    environment.globals["static"] = f"/static/{static_version()}"
    environment.filters |= {"age": age, "size": size}
    environment.filters["words"] = lambda name: str(name).replace("_", " ")
    return environment


def render(template: str, **values: Any) -> str:
    """A page."""
    return _environment().get_template(template).render(**values)
