"""The wheel: what it carries, and that pipx and `ticketctl setup` make of it what install.sh makes.

On the chosen Debian; continuous integration does it on both.
"""

from __future__ import annotations

import re
import shlex
import subprocess
import sys
import tarfile
import zipfile
from pathlib import Path

import pytest

from tests.machine.cache import Layer
from tests.machine.fixtures import NewMachine
from tests.machine.install import REPOSITORY
from tests.machine.machine import Machine
from tests.machine.product import CONFIG, DATA, HOME, STATE, TICKETCTL, Product

PAGE = REPOSITORY / "docs/pipx.md"
UNITS = f"{HOME}/.config/systemd/user"
MAN = f"{HOME}/.local/share/man"
VENV = f"{DATA}/venv"


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """`python -m build`: the wheel, made of the sdist, and the sdist."""
    folder = tmp_path_factory.mktemp("dist")
    argv = [sys.executable, "-m", "build", "--outdir", str(folder), str(REPOSITORY)]
    done = subprocess.run(argv, capture_output=True, text=True, check=False, timeout=600)
    assert done.returncode == 0, f"{done.stdout[-2000:]}\n{done.stderr[-2000:]}"
    return next(folder.glob("*.whl")), next(folder.glob("*.tar.gz"))


def version_of(wheel: Path) -> str:
    """What its name says."""
    return wheel.name.split("-")[1]


def test_the_wheel_carries_all_that_is_needed(built: tuple[Path, Path]) -> None:
    """Units, templates and documents to the byte; browser code, each with its licence; nothing of the build's."""
    with zipfile.ZipFile(built[0]) as wheel:
        names = set(wheel.namelist())
        for folder in ("units", "templates", "docs"):
            for path in (p for p in (REPOSITORY / folder).rglob("*") if p.is_file()):
                name = f"orchestrator/share/{path.relative_to(REPOSITORY)}"
                assert wheel.read(name) == path.read_bytes(), name
        vendor = {n.rpartition("/")[2] for n in names if n.startswith("webgate/static/vendor/")}
        for name in (
            "xterm",
            "addon-fit",
            "addon-search",
            "addon-unicode11",
            "addon-web-links",
            "addon-webgl",
        ):
            assert {f"{name}.mjs", f"{name}-LICENSE"} <= vendor, vendor
        assert "xterm.css" in vendor
        own = f"mission_control-{version_of(built[0])}.dist-info"
        assert f"{own}/licenses/LICENSE" in names
        assert f"\nVersion: {version_of(built[0])}\n" in wheel.read(f"{own}/METADATA").decode()
    assert not [n for n in names if n.startswith(("tests/", "release/", "webgate/npm/"))]
    assert "webgate/vendor_hook.py" not in names


def test_the_sdist_needs_no_npm(built: tuple[Path, Path]) -> None:
    """It has the browser code too, and the sum that says so: who builds from it asks npm for nothing."""
    with tarfile.open(built[1]) as sdist:
        names = {name.partition("/")[2] for name in sdist.getnames()}
    assert {
        "units/ticket@.service",
        "webgate/static/vendor/STAMP",
        "webgate/static/vendor/xterm.mjs",
    } <= names


def type_page(machine: Machine) -> str:
    """Types the commands of docs/pipx.md into one shell; each has to exit with 0."""
    blocks = re.findall(
        r"^```console\n(.*?)^```$", PAGE.read_text(encoding="utf-8"), re.DOTALL | re.MULTILINE
    )
    commands = [line for block in blocks for line in re.findall(r"^\$ (.*)$", block, re.MULTILINE)]
    script = "".join(
        f"printf '%s\\n' {shlex.quote(f'$ {each}')}\n{each}\n"
        'status=$?; [ $status = 0 ] || { echo "exit status $status"; exit 1; }\n'
        for each in commands
    )
    done = machine.run(
        ["bash", "-c", f"exec 2>&1 </dev/null; PATH=$HOME/.local/bin:$PATH; cd ~\n{script}"],
        check=False,
        timeout=900,
    )
    assert done.returncode == 0, done.stdout[-3000:]
    return done.stdout


def files_of(layer: Layer, folder: str) -> dict[str, bytes]:
    """The files in a folder of a machine that is off."""
    tree = layer.path / "tree" / folder.removeprefix("/")
    return {str(p.relative_to(tree)): p.read_bytes() for p in tree.rglob("*") if p.is_file()}


def files_in(machine: Machine, folder: str, into: Path) -> dict[str, bytes]:
    """The same of one that is on."""
    machine.copy_out(folder, into)
    return {str(p.relative_to(into)): p.read_bytes() for p in into.rglob("*") if p.is_file()}


def upgrade(machine: Machine, product: Product, wheel: Path, ticket: int) -> None:
    """`pipx install --force` of a newer wheel and setup, as docs/pipx.md has it: new program, same worker."""
    newer = f"{HOME}/newer/mission_control-99.0-py3-none-any.whl"
    # the same wheel under another version: nothing of it has to be built again, and the libraries are there
    machine.run(
        ["python3", "-c", RENUMBER, f"{HOME}/{wheel.name}", version_of(wheel), "99.0", newer]
    )
    pid = product.main_pid(ticket)
    gateway = machine.sh("systemctl --user show -P MainPID mc-dispatch").stdout
    page = PAGE.read_text(encoding="utf-8")
    assert "`pipx install --force ./mission_control-NEW.whl`, then `ticketctl setup`" in page
    machine.run(["pipx", "install", "--force", newer], timeout=300)
    assert product.ctl("--version").stdout == "ticketctl, version 99.0\n"
    machine.run([TICKETCTL, "setup"], timeout=300)
    assert product.main_pid(ticket) == pid, "tickets run on"
    assert machine.sh("systemctl --user show -P MainPID mc-dispatch").stdout != gateway
    assert "Nothing had to be changed." in product.ctl("setup").stdout
    product.say(ticket, "what is 50+3")
    product.wait_screen(ticket, "50 + 3 = 53")


RENUMBER = """
import pathlib, sys, zipfile
old, version, new_version, new = sys.argv[1:]
pathlib.Path(new).parent.mkdir()
info = f"mission_control-{version}.dist-info/"
with zipfile.ZipFile(old) as wheel, zipfile.ZipFile(new, "w") as made:
    for name in wheel.namelist():
        data = wheel.read(name)
        if name == info + "METADATA":
            data = data.replace(f"\\nVersion: {version}\\n".encode(), f"\\nVersion: {new_version}\\n".encode())
        if name == info + "RECORD":
            lines = [l for l in data.decode().splitlines() if not l.startswith(info + "METADATA,")]
            lines.append(info + "METADATA,,")
            data = "\\n".join(lines).replace(info, info.replace(version, new_version)).encode()
        made.writestr(name.replace(info, info.replace(version, new_version)), data)
"""


@pytest.mark.timeout(1500)
def test_pipx_and_setup_equal_install_sh(
    built: tuple[Path, Path], installed: Layer, fresh_machine: NewMachine, tmp_path: Path
) -> None:
    """docs/pipx.md as typed: the same files to the byte, a ticket that answers, nothing to do twice, and gone."""
    machine = fresh_machine(network="internet")
    machine.copy_in(built[0], f"{HOME}/{built[0].name}")
    printed = type_page(machine)
    assert "/login?code=" in printed
    product = Product(machine)
    assert product.ctl("--version").stdout == f"ticketctl, version {version_of(built[0])}\n"

    docs = files_in(machine, f"{DATA}/docs", tmp_path / "docs")
    assert docs == {p.name: p.read_bytes() for p in (REPOSITORY / "docs").glob("*.md")}
    for folder in (UNITS, CONFIG):
        here, there = files_in(machine, folder, tmp_path / folder[1:]), files_of(installed, folder)
        assert here == there, folder
    theirs = files_of(installed, MAN)
    ours = files_in(machine, MAN, tmp_path / "man")
    head = re.compile(rb'"mission-control [^"]*"')  # the version is each's own
    assert {n: head.sub(b"", t) for n, t in ours.items()} == {
        n: head.sub(b"", t) for n, t in theirs.items()
    }
    assert (
        machine.sh(f"readlink {VENV}").stdout
        == machine.sh("dirname $(dirname $(readlink -f ~/.local/bin/ticketctl))").stdout
    )

    ticket = product.new("from a wheel", "--driver", "demo", "--repo", product.make_repository())
    product.systemctl("start", f"ticket@{ticket}")
    product.say(ticket, "what is 40+2")
    product.wait_screen(ticket, "40 + 2 = 42")
    assert product.show(ticket)["isolation"]["mode"] == "workspace", (
        "an isolated agent finds the program too"
    )
    for line in product.ctl("doctor").stdout.splitlines():
        assert not line.startswith(" bad"), line

    look = (
        f"find {HOME}/.config {DATA}/ {HOME}/.local/bin {MAN} -newer /tmp/mark -type f | grep -v __pycache__ || true;"
        " systemctl --user show -p MainPID --value tmux-mc mc-postgres mc-dispatch mc-ingest"
    )
    before = machine.sh(f"touch /tmp/mark; {look}").stdout
    assert "Nothing had to be changed." in product.ctl("setup").stdout
    assert machine.sh(look).stdout == before
    product.say(ticket, "still there?")
    upgrade(machine, product, built[0], ticket)

    gone = product.ctl("setup", "--uninstall").stdout
    assert "pipx uninstall mission-control" in gone
    assert not [line for line in product.command_lines() if "mission-control" in line]
    assert (
        machine.sh(
            f"ls {UNITS} | grep -cE 'mc|ticket' || true; ls -A {MAN}/man1; ls -d {DATA} || true"
        ).stdout
        == "0\n"
    )
    assert machine.run(["test", "-d", f"{STATE}/postgres"]).returncode == 0, "the data stays"
    assert "mission-control" in machine.run(["pipx", "list"]).stdout
    machine.run(["pipx", "uninstall", "mission-control"])
    assert machine.run(["test", "-e", f"{HOME}/.local/bin/ticketctl"], check=False).returncode
