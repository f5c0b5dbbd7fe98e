"""ExecStop= of ticket@.service: asks the agent to leave, waits until it has, then clears up.

`python -m orchestrator.stop left UNIT` is only the clearing up. tmux runs it when an agent has ended by
itself: systemd, whose child the agent is not, notices that only once the unit's cgroup is empty, and
a child that was left behind would keep the unit active for ever.

systemd itself does not wait for a main process that is not its child: it follows SIGTERM with
SIGKILL in the same breath when nothing else is in the cgroup, and the agent could not end its
conversation properly. And what it has to kill after a timeout it counts as a failure, which a stop
that somebody asked for is not.

An isolated agent leaves two processes of its sandbox, which pass on how it ended and go by
themselves; a signal would have them tell of themselves instead.

Light on imports: it is between `systemctl stop` and its end.
"""

from __future__ import annotations

import os
import select
import signal
import subprocess
import sys
import time
from collections.abc import Iterable

from orchestrator.procfs import MONITOR, agent_behind, name

AGENT_PATIENCE_S = 8.0  # together below TimeoutStopSec=, past which systemd kills by itself
CHILDREN_PATIENCE_S = 2.0


def main() -> None:
    """Entry point `mc-stop`; systemd gives $MAINPID, or not where the agent is gone already."""
    if sys.argv[1:2] == ["left"] and len(sys.argv) == 3:
        clear_up(cgroup_of(sys.argv[2]))
        return
    main = os.environ.get("MAINPID", "")
    agent = agent_behind(int(main)) if main.isdigit() else 0
    if agent and not leave([agent], [signal.SIGTERM], AGENT_PATIENCE_S):
        print(f"the agent did not leave within {AGENT_PATIENCE_S:.0f} s", file=sys.stderr)
        leave([agent], [signal.SIGKILL], CHILDREN_PATIENCE_S)
    clear_up(own_cgroup())


def clear_up(unit: str) -> None:
    """Ends what is left in a ticket's cgroup: asked first, killed then.

    As long as one of them is there, no other worker is started in their place.
    """
    leave([pid for pid in left_behind(unit) if name(pid) == MONITOR], [], CHILDREN_PATIENCE_S)
    if not leave(left_behind(unit), [signal.SIGHUP, signal.SIGTERM], CHILDREN_PATIENCE_S):
        stubborn = left_behind(unit)
        print(f"killing what ignores SIGHUP and SIGTERM: {stubborn}", file=sys.stderr)
        leave(stubborn, [signal.SIGKILL], CHILDREN_PATIENCE_S)


def own_cgroup() -> str:
    """The unit that this process is a control process of."""
    with open("/proc/self/cgroup", encoding="utf-8") as file:
        own = next((line[3:].strip() for line in file if line.startswith("0::")), "")
    return own.removesuffix("/.control")


def cgroup_of(unit: str) -> str:
    """The cgroup of a unit, by systemd's word; empty where it has none."""
    argv = ["systemctl", "--user", "show", "--property=ControlGroup", "--value", "--", unit]
    return subprocess.run(argv, capture_output=True, text=True, check=False).stdout.strip()


def left_behind(unit: str) -> list[int]:
    """The processes in a ticket's cgroup that are not its control processes, such as `mc-stop`."""
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


if __name__ == "__main__":
    main()
