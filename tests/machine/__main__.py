"""Test machines for people: a shell in a throw-away computer.

python3 -m tests.machine shell                    a fresh Debian, gone when the shell ends
python3 -m tests.machine shell --installed        the product installed
python3 -m tests.machine run -- systemctl status  one command
python3 -m tests.machine boot --network=host      stays until Ctrl-C; enter it from elsewhere:
python3 -m tests.machine enter NAME
"""

from __future__ import annotations

import argparse
import signal
import subprocess
import sys
from typing import get_args

from tests.machine import inside, record
from tests.machine.base import DEFAULT_SUITE, ensure_base
from tests.machine.cache import cache_dir, layers_dir, remove_tree
from tests.machine.cgroup import cgroup_path
from tests.machine.install import copy_checkout, ensure_installed
from tests.machine.machine import Machine
from tests.machine.network import Network
from tests.machine.requirements import why_not

SHELL = ["script", "-qec", "bash -l", "/dev/null"]  # a terminal of the machine's own for the shell


def parse(argv: list[str]) -> argparse.Namespace:
    """Read the command line."""
    form = argparse.RawDescriptionHelpFormatter
    parser = argparse.ArgumentParser(
        "python3 -m tests.machine", description=__doc__, formatter_class=form
    )
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")
    machine = argparse.ArgumentParser(add_help=False)
    machine.add_argument(
        "--suite", default=DEFAULT_SUITE, help="Debian release (default: %(default)s)"
    )
    machine.add_argument("--network", choices=get_args(Network), default="internet")
    machine.add_argument("--installed", action="store_true", help="with the product installed")
    machine.add_argument("--checkout", action="store_true", help="with this repository copied in")
    bind_help = "show a file or folder of the host inside, read-only"
    machine.add_argument(
        "--bind", action="append", default=[], metavar="HOST:INSIDE", help=bind_help
    )
    user = argparse.ArgumentParser(add_help=False)
    user.add_argument("--user", default="op", choices=("op", "root"))
    commands.add_parser("shell", parents=[machine, user], help="a shell in a new machine")
    run = commands.add_parser("run", parents=[machine, user], help="a command in a new machine")
    run.add_argument("argv", nargs="*")
    commands.add_parser("boot", parents=[machine], help="boot one and keep it until Ctrl-C")
    enter = commands.add_parser(
        "enter", parents=[user], help="a shell or command in a running machine"
    )
    enter.add_argument("name")
    enter.add_argument("argv", nargs="*", default=SHELL)
    commands.add_parser("list", help="the machines that exist now")
    commands.add_parser("sweep", help="remove what dead test runs left")
    commands.add_parser("clean", help="remove every cached layer and leftover")
    commands.add_parser("check", help="say whether machines can run here")
    split = argv.index("--") if "--" in argv else len(argv)
    options = parser.parse_args(argv[:split])
    if argv[split + 1 :]:
        options.argv = argv[split + 1 :]
    if options.command == "run" and not options.argv:
        parser.error("run what?")
    return options


def attach(name: str, user: str, argv: list[str]) -> int:
    """Run a command in the machine called `name`, on this terminal."""
    folder = record.machines_dir() / name
    leader = record.leader_of(folder)
    if not leader:
        print(f"{name} is not running", file=sys.stderr)
        return 1
    whole = inside.as_user(user, argv, None)
    process = inside.Process(cgroup_path(name), leader, whole, stdin=None)
    try:
        return process.wait()
    finally:
        process.kill()
        process.wait()
        process.forget()


def in_new_machine(options: argparse.Namespace) -> int:
    """Boot a machine as asked for, use it, throw it away."""
    layer = ensure_installed(options.suite) if options.installed else ensure_base(options.suite)
    binds = dict(bind.split(":", 1) for bind in options.bind)
    with Machine(layer, network=options.network, binds=binds) as machine:
        machine.boot()
        if options.checkout:
            copy_checkout(machine)
        if options.command == "boot":
            prefix = " ".join(machine.netns_exec_argv())
            print(
                f"{machine.name} is up; python3 -m tests.machine enter {machine.name}", flush=True
            )
            if prefix:
                print(f"a program of the host in its network: {prefix} PROGRAM", flush=True)
            signal.pause()
            return 0
        return attach(
            machine.name, options.user, SHELL if options.command == "shell" else options.argv
        )


def show_machines() -> int:
    """List the machines that exist now."""
    for folder in sorted(record.machines_dir().iterdir()):
        state = "on" if record.leader_of(folder) else "off"
        print(folder.name, state, "" if record.owner_lives(folder) else "(abandoned)")
    return 0


def clean() -> int:
    """Remove every cached layer, unless a machine may be standing on one."""
    if any(record.machines_dir().iterdir()):
        print("machines are running, nothing removed", file=sys.stderr)
        return 1
    for path in layers_dir().iterdir():
        remove_tree(path)
    return 0


def main(argv: list[str]) -> int:
    """Do what the command line says; return the exit status."""
    options = parse(argv)
    reason = why_not()
    if reason or options.command == "check":
        print(reason or f"machines can run here; cache: {cache_dir()}")
        return 1 if reason else 0
    if options.command == "enter":
        return attach(options.name, options.user, options.argv)
    if options.command == "list":
        return show_machines()
    for name in record.sweep():
        print(f"removed {name}, left by a process that is gone", file=sys.stderr)
    if options.command in {"sweep", "clean"}:
        return clean() if options.command == "clean" else 0
    return in_new_machine(options)


if __name__ == "__main__":
    try:
        sys.exit(main(sys.argv[1:]))
    except KeyboardInterrupt:
        sys.exit(130)
    except subprocess.CalledProcessError as error:
        sys.exit(str(error))
