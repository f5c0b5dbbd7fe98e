"""Hear from systemd-nspawn which process is a machine's PID 1, and when that one is ready.

It listens all the time the machine is on: nspawn passes on whatever PID 1 says, also while shutting
down, and blocks when nobody reads.
"""

from __future__ import annotations

import socket
import threading


class Notifications:
    """The receiving end of $NOTIFY_SOCKET for one machine, over its reboots."""

    def __init__(self, name: str) -> None:
        self.address = f"@{name}"  #: for $NOTIFY_SOCKET
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self._socket.bind(f"\0{name}")
        self._changed = threading.Condition()
        self._leader = 0
        self._ready = False
        self._thread = threading.Thread(target=self._listen, name=name, daemon=True)
        self._thread.start()

    def _listen(self) -> None:
        with self._socket:
            while data := self._socket.recv(65536):
                with self._changed:
                    for line in data.decode(errors="replace").splitlines():
                        if line.startswith("X_NSPAWN_LEADER_PID="):
                            self._leader = int(line.partition("=")[2])
                            self._ready = False
                        elif line == "READY=1":  # also after a daemon-reload inside
                            self._ready = True
                    self._changed.notify_all()

    def wait_ready(self, after: int, timeout_s: float) -> int:
        """Return the PID 1 that came after the one called `after`, once it is ready; 0 if not yet."""

        def up() -> bool:
            return self._ready and self._leader not in {0, after}

        with self._changed:
            return self._leader if self._changed.wait_for(up, timeout_s) else 0

    def close(self) -> None:
        """Stop listening."""
        self._socket.shutdown(socket.SHUT_RD)
        self._thread.join()
