"""The entry point `mc-launch`: the launcher, imported without the collector of garbage.

What modules make while they are imported stays; that the collector walks over all of it nine times is
a fifteenth of the imports. A launcher is gone before it has made garbage worth a walk.
"""

from __future__ import annotations

import gc


def main() -> None:
    """Imports the launcher, and is it."""
    gc.disable()
    from orchestrator.launch import main as launch  # noqa: PLC0415  # the very import it is for

    launch()
