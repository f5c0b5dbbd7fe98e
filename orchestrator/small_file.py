"""Read a little file that somebody else may have put something in place of.

What an agent can write is data: a FIFO there must not hold up who looks, a link lead nowhere, and a
size be bounded. Whoever reads files out of an agent's folders reads them with this.
"""

from __future__ import annotations

import os
import stat
from pathlib import Path


def read_small(path: Path, max_bytes: int) -> bytes:
    """The beginning of a regular file.

    Raises:
        OSError: it is not there, or is none.
    """
    fd = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
    with os.fdopen(fd, "rb") as file:
        if not stat.S_ISREG(os.fstat(fd).st_mode):
            raise OSError(f"{path} is no regular file")
        return file.read(max_bytes)
