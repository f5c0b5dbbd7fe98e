"""The floor under many viewers: a loop that sends what a log grew by to every socket, and nothing else.

No limits, no login, no resuming, nobody slow: what the kernel takes for so many sends.

    python3 -m benchmarks.bare PORT LOG
"""

from __future__ import annotations

import base64
import os
import random
import select
import socket
import sys
from contextlib import suppress

from watchdog.observers import inotify_c


def main() -> None:
    """Runs until it is killed."""
    listener = socket.create_server(("127.0.0.1", int(sys.argv[1])), backlog=4096)
    log = os.open(sys.argv[2], os.O_RDONLY)
    os.lseek(log, 0, os.SEEK_END)
    watch = inotify_c.inotify_init()
    inotify_c.inotify_add_watch(
        watch, os.fsencode(sys.argv[2]), inotify_c.InotifyConstants.IN_MODIFY
    )
    poll = select.epoll()
    poll.register(listener, select.EPOLLIN)
    poll.register(watch, select.EPOLLIN)
    peers: list[socket.socket] = []
    print("ready", flush=True)
    while True:
        for fd, _ in poll.poll():
            if fd == listener.fileno():
                peer, _ = listener.accept()
                peer.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
                peer.recv(65_536)
                peer.sendall(b"HTTP/1.1 200 OK\r\n\r\n")
                # in any order, so that those who are watched are not always served first
                peers.insert(random.randint(0, len(peers)), peer)  # noqa: S311  # no secret
                continue
            os.read(watch, 65_536)
            data = os.read(log, 98_304)
            frame = b"id: 0:%d\nevent: pane\ndata: %s\n\n" % (0, base64.b64encode(data))
            for peer in peers:
                with suppress(ConnectionError):  # who hung up is no floor of ours
                    peer.send(frame)


if __name__ == "__main__":
    main()
