"""Wait for a descriptor, whatever its number.

select(2) takes none from 1,024 on, and the gateway has a thousand viewers and more. Under gevent,
which replaces `select.poll`, others go on meanwhile.
"""

from __future__ import annotations

import math
import select


def any_ready(reads: list[int], writes: list[int], timeout_s: float) -> bool:
    """Whether one of them can be read from, or written to, within so many seconds."""
    poll = select.poll()
    for fds, event in ((reads, select.POLLIN), (writes, select.POLLOUT)):
        for fd in fds:
            poll.register(fd, event)
    return bool(poll.poll(max(0, math.ceil(timeout_s * 1000))))
