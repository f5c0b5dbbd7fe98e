"""Whether an advisory is known for what the program runs with. Needs the network, and an advisory service."""

from __future__ import annotations

import pytest

from release.audit import audit
from release.parts import libraries


@pytest.mark.timeout(400)
def test_no_advisory_is_known_for_a_library() -> None:
    """Each finding is one line: the library, the advisory, and the version that mends it."""
    found = audit(libraries())
    if found.unknown and not found.findings:
        pytest.skip(found.unknown)
    assert not found.findings, f"\n{found}"
