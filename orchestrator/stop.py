"""ExecStop= of ticket@.service: asks the agent to leave, waits until it has, then clears up.

systemd itself does not wait for a main process that is not its child: it follows SIGTERM with
SIGKILL in the same breath when nothing else is in the cgroup, and the agent could not end its
conversation properly. And what it has to kill after a timeout it counts as a failure, which a stop
that somebody asked for is not.

Light on imports: it is between `systemctl stop` and its end.
"""

from __future__ import annotations

import os
import select
import signal
import sys
import time
from collections.abc import Iterable

AGENT_PATIENCE_S = 8.0  # together below TimeoutStopSec=, past which systemd kills by itself
CHILDREN_PATIENCE_S = 2.0


def main() -> None:
    """Entry point `mc-stop`; systemd gives $MAINPID, or not where the agent is gone already."""
    agent = os.environ.get("MAINPID", "")
    if agent.isdigit() and not leave([int(agent)], [signal.SIGTERM], AGENT_PATIENCE_S):
        print(f"the agent did not leave within {AGENT_PATIENCE_S:.0f} s", file=sys.stderr)
    if not leave(left_behind(), [signal.SIGHUP, signal.SIGTERM], CHILDREN_PATIENCE_S):
        stubborn = left_behind()
        print(f"killing what ignores SIGHUP and SIGTERM: {stubborn}", file=sys.stderr)
        leave(stubborn, [signal.SIGKILL], CHILDREN_PATIENCE_S)


def left_behind() -> list[int]:
    """The processes of this unit that are not its control processes, such as this one."""
    with open("/proc/self/cgroup", encoding="utf-8") as file:
        own = next((line[3:].strip() for line in file if line.startswith("0::")), "")
    unit = own.removesuffix("/.control")
    if not unit.rpartition("/")[2].startswith("ticket@"):
        return []
    pids: list[int] = []
    for folder, folders, _ in os.walk(f"/sys/fs/cgroup{unit}"):
        if ".control" in folders:
            folders.remove(".control")
        try:
            with open(f"{folder}/cgroup.procs", encoding="ascii") as file:
                pids += [int(line) for line in file]
        except OSError:  # that child's cgroup went away just now
            continue
    return [pid for pid in pids if pid not in {0, os.getpid()}]


def leave(pids: Iterable[int], signals: list[signal.Signals], patience_s: float) -> bool:
    """Sends signals to processes and waits for their end; False: some are still there."""
    poller = select.poll()
    waiting: set[int] = set()
    for pid in pids:
        try:
            fd = os.pidfd_open(pid)
            for number in signals:
                signal.pidfd_send_signal(fd, number)
        except OSError:  # gone, or a zombie whose parent has not looked yet
            continue
        poller.register(fd, select.POLLIN)
        waiting.add(fd)
    deadline = time.monotonic() + patience_s
    while waiting and (left_s := deadline - time.monotonic()) > 0:
        for fd, _ in poller.poll(left_s * 1000):
            poller.unregister(fd)
            waiting.discard(fd)
    return not waiting
