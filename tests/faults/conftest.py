"""The drills share the machine with the real CLI."""

from __future__ import annotations

from tests.claude.conftest import product

__all__ = ["product"]
