"""What an agent can reach of its machine, tried from inside a ticket; and what it must be able to do.

Each thing that must fail is tried in a ticket without isolation too, where it has to work: or the
test would say nothing.
"""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from tests.machine.cache import Layer
from tests.machine.claude_cli import NoClaudeError, find_npm
from tests.machine.fixtures import NewMachine
from tests.machine.inside_ticket import Inside
from tests.machine.product import CONFIG, HOME, REPOSITORY, STATE, Product

RUNTIME = "/run/user/1000"


def node_binds() -> dict[str | Path, str]:
    """The host's node and npm, as they are shown to the machine; none where there are none."""
    try:
        npm = Path(find_npm())
    except NoClaudeError:
        return {}
    node = shutil.which("node") or str(npm.parent / "node")
    package = npm.resolve().parent.parent
    return {Path(node).resolve(): "/usr/local/bin/node", package: "/opt/npm"}


@pytest.fixture(scope="module")
def product(installed: Layer, module_machines: NewMachine) -> Product:
    """One machine for the tests of this module."""
    made = Product(module_machines(installed, binds=node_binds()))
    made.make_repository()
    made.machine.sh(
        f"git -C {REPOSITORY} branch other; git -C {REPOSITORY} branch third; mkdir -p -m 700 {HOME}/.ssh {HOME}/.aws;"
        f" echo key > {HOME}/.ssh/id_ed25519; echo key > {HOME}/.netrc; umask 077; echo KEY=1 > {CONFIG}/agent.env"
    )
    return made


@pytest.fixture(scope="module")
def neighbour(product: Product) -> Inside:
    """Ticket 2 of the promises: it must not be reached."""
    return Inside(product, repo=REPOSITORY)


@pytest.fixture(scope="module")
def contained(product: Product, neighbour: Inside) -> Inside:
    """A ticket as tickets are by default."""
    return Inside(product, repo=REPOSITORY)


@pytest.fixture(scope="module")
def free(product: Product, neighbour: Inside) -> Inside:
    """A ticket that is its operator."""
    return Inside(product, "--isolation", "off", repo=REPOSITORY)


def connect(path: str) -> str:
    """A script that connects to a Unix socket."""
    return f"python3 -c 'import socket; socket.socket(socket.AF_UNIX).connect(\"{path}\")'"


#: name, script; {n} is the neighbour's number, {pid} its process, {unit} its cgroup
FORBIDDEN = [
    ("systemd-run", "systemd-run --user --wait true"),
    ("systemd-run of root", "sudo -n true"),
    ("systemctl", "systemctl --user show-environment"),
    ("the user bus", connect(f"{RUNTIME}/bus")),
    ("the system bus", connect("/run/dbus/system_bus_socket")),
    ("the manager", connect(f"{RUNTIME}/systemd/private")),
    ("tmux", "tmux send-keys -t =ticket-{n}: a"),
    ("the tmux socket", connect("/tmp/tmux-1000/default")),
    ("the database", connect(f"{RUNTIME}/mission-control/postgres/.s.PGSQL.5432")),
    ("ssh keys", f"cat {HOME}/.ssh/id_ed25519"),
    ("the folder of ssh keys", f"ls {HOME}/.ssh"),
    ("a file of passwords", f"cat {HOME}/.netrc"),
    ("another ticket's log", f"cat {STATE}/tickets/{{n}}/pane.log"),
    ("another ticket's worktree", f"cat {HOME}/src/wt/ticket-{{n}}/README"),
    ("the token", f"cat {STATE}/token"),
    ("another ticket's folder", f"ls {STATE}/tickets/{{n}}"),
    ("the configuration", f"cat {CONFIG}/config.toml"),
    ("keys for all agents", f"cat {CONFIG}/agent.env"),
    ("its own log", f"echo planted >> {STATE}/tickets/{{own}}/pane.log"),
    ("git's configuration", f"git config --file {REPOSITORY}/.git/config mc.test yes"),
    ("the repository's configuration", "git config mc.test yes"),
    ("a hook", f"echo true > {REPOSITORY}/.git/hooks/post-commit"),
    ("what leads to the repository", "cat .git > copy && mv copy .git"),
    ("another branch", "git update-ref refs/heads/other $(git commit-tree -m {own} HEAD^{{tree}})"),
    ("another branch, past git", f"git rev-parse HEAD > {REPOSITORY}/.git/refs/heads/third"),
    ("the home", f"touch {HOME}/planted"),
    ("a shell's start", f"echo >> {HOME}/.bashrc"),
    ("units", f"touch {HOME}/.config/systemd/user/planted.conf"),
    ("the program", f"touch {HOME}/.local/share/mission-control/venv/planted"),
    ("a signal", "kill -0 {pid}"),
    ("what another runs", "cat /proc/{pid}/environ > /dev/null"),
    ("another's cgroup", "echo 0 > {unit}/cgroup.freeze"),
    ("another's terminal", "test -w {tty} && echo >> {tty}"),
]  # fmt: skip


@pytest.mark.parametrize("script", [pytest.param(s, id=name) for name, s in FORBIDDEN])
def test_what_an_agent_cannot_reach(
    product: Product, contained: Inside, free: Inside, neighbour: Inside, script: str
) -> None:
    """It fails inside a ticket, and works in one without isolation."""
    pid = product.main_pid(neighbour.ticket)
    outer = product.machine.run(["tmux", "list-panes", "-t", f"=ticket-{neighbour.ticket}:", "-F",
                                 "#{pane_tty}"]).stdout.strip()  # fmt: skip
    facts = {"n": neighbour.ticket, "pid": pid, "tty": outer,
             "unit": f"/sys/fs/cgroup{product.unit(neighbour.ticket)['ControlGroup']}"}  # fmt: skip
    there = free.run(script.format(**facts, own=free.ticket))
    assert there.returncode == 0, there.stdout
    inside = contained.run(script.format(**facts, own=contained.ticket))
    assert inside.returncode != 0, inside.stdout


def test_another_ticket_goes_on(product: Product, contained: Inside, neighbour: Inside) -> None:
    """Stopping it, or everything that can be seen, ends nothing but one's own."""
    before = product.main_pid(neighbour.ticket)
    assert contained.run(f"systemctl --user stop ticket@{neighbour.ticket}").returncode
    contained.run("sleep 700 & kill -9 $!; killall -u op sleep 2>/dev/null; true")
    assert product.main_pid(neighbour.ticket) == before
    assert product.ctl("doctor", check=False).stdout


#: name, script: what has to work
PERMITTED = [
    ("git commit", "echo more >> README && git add README && git commit -qm more && git log --oneline"),
    ("git rebase", "git commit -q --allow-empty -m empty && git rebase -q --keep-empty HEAD~1 && git status"),
    ("git diff with main", "git diff --stat main..HEAD && git log -1 main"),
    ("python", "python3 -c 'import tempfile; tempfile.NamedTemporaryFile().write(b\"x\"); print(2 + 2)'"),
    ("python in a venv of its own", "python3 -m venv --without-pip .venv && .venv/bin/python -c 'print(1)'"),
    ("a temporary file", "f=$(mktemp) && echo x > $f && rm $f"),
    ("shared memory", "python3 -c 'from multiprocessing import Pool; print(Pool(2).map(abs, [-1, 2]))'"),
    ("a cache", f"mkdir -p {HOME}/.cache/tool && echo x > {HOME}/.cache/tool/file"),
    ("git's identity", 'test "$(git config user.email)" = op@example.org'),
    ("names", "getent hosts localhost"),
    ("a sandbox of its own", "bwrap --unshare-all --ro-bind / / --dev /dev --proc /proc --tmpfs /tmp true"),
    ("no core dumps", 'test "$(ulimit -c)" = 0'),
    ("no TMUX", 'test -z "$TMUX$TMUX_PANE$DBUS_SESSION_BUS_ADDRESS$SSH_AUTH_SOCK"'),
    ("few processes", 'test "$(ls -d /proc/[0-9]* | wc -l)" -lt 10'),
]  # fmt: skip


@pytest.mark.parametrize("script", [pytest.param(s, id=name) for name, s in PERMITTED])
def test_what_an_agent_can_do(contained: Inside, script: str) -> None:
    """Its work."""
    done = contained.run(script)
    assert done.returncode == 0, done.stdout


def test_node_and_npm_install(contained: Inside) -> None:
    """A package with a script of its own, installed into the worktree."""
    if not node_binds():
        pytest.skip("no node and npm on this host")
    done = contained.run(
        "node -e 'console.log(6 * 7)' && mkdir -p dep && cd dep &&"
        ' echo \'{"name":"dep","version":"1.0.0","scripts":{"install":"touch ran"}}\' > package.json &&'
        ' cd .. && echo \'{"name":"app","version":"1.0.0"}\' > package.json &&'
        " node /opt/npm/bin/npm-cli.js install --install-links --foreground-scripts --no-audit ./dep &&"
        " test -e node_modules/dep/ran && echo installed",
        timeout=120,
    )
    assert done.returncode == 0, done.stdout
    assert "42" in done.stdout
    assert "installed" in done.stdout


def test_what_it_commits_is_on_its_branch(product: Product, contained: Inside) -> None:
    """The operator sees it in the repository, with a log; nothing else there has changed."""
    before = product.machine.sh(
        f"git -C {REPOSITORY} for-each-ref refs/heads/main refs/heads/other"
    ).stdout
    assert contained.run("git commit -q --allow-empty -m 'from inside'").returncode == 0
    branch = f"ticket-{contained.ticket}"
    assert (
        product.machine.sh(f"git -C {REPOSITORY} log -1 --format=%s {branch}").stdout
        == "from inside\n"
    )
    assert "from inside" in product.machine.sh(f"git -C {REPOSITORY} reflog {branch}").stdout
    after = product.machine.sh(
        f"git -C {REPOSITORY} for-each-ref refs/heads/main refs/heads/other"
    ).stdout
    assert after == before
    assert not product.machine.sh(f"git -C {REPOSITORY} fsck --no-dangling").stdout
    # the operator goes on meanwhile, packs included
    product.machine.sh(
        f"cd {REPOSITORY} && git commit -q --allow-empty -m 'from outside' && git gc -q"
    )
    assert contained.run("git commit -q --allow-empty -m 'after packing'").returncode == 0
    assert (
        product.machine.sh(f"git -C {REPOSITORY} log -1 --format=%s {branch}").stdout
        == "after packing\n"
    )


def test_the_unit_stays_a_unit(product: Product) -> None:
    """Main process, cgroup, exit status, a kill that is a crash, a stop that is none."""
    ticket = Inside(product)
    pid = product.main_pid(ticket.ticket)
    assert product.read(f"/proc/{pid}/comm").strip() == "sh"
    assert pid in product.cgroup_pids(ticket.ticket)
    assert "Isolation: workspace" in product.ctl("show", str(ticket.ticket)).stdout
    product.machine.sh(f"kill -9 {pid}")
    product.machine.wait_for(
        lambda: product.main_pid(ticket.ticket) not in {0, pid}, what="its return"
    )
    told = product.machine.run(
        ["journalctl", "--user", f"TICKET_ID={ticket.ticket}", "-o", "cat"]
    ).stdout
    assert "was killed by SIGKILL" in told
    assert ticket.run("true").returncode == 0
    ticket.run(
        "setsid sh -c \"trap '' HUP TERM INT; while :; do sleep 705; done\" > /dev/null 2>&1 &"
    )
    assert runs(product, "sleep 705")
    product.systemctl("stop", f"ticket@{ticket.ticket}")
    assert not runs(product, "sleep 705")
    assert product.unit(ticket.ticket)["Result"] == "success"


def test_an_exit_status_comes_through(product: Product) -> None:
    """3 is a crash with that number, 0 is none."""
    failing = product.new("fails", "--driver", "command", "--", "sh", "-c", "exit 3")
    product.systemctl("start", f"ticket@{failing}", check=False)
    product.wait_active(failing, "failed")
    assert "exited with status 3" in product.unit(failing)["StatusText"]
    leaving = product.new("leaves", "--driver", "command", "--", "sh", "-c", "sleep 1; exit 0")
    product.ctl("start", str(leaving))
    product.wait_active(leaving, "inactive")
    assert (product.unit(leaving)["Result"], product.unit(leaving)["NRestarts"]) == ("success", "0")


def test_a_sandbox_that_cannot_be_made_is_said(product: Product) -> None:
    """One sentence of bubblewrap's in the status; the unit is failed and not tried again."""
    ticket = product.new("no", "--driver", "command", "--", "sleep", "706")
    drop_in(product, ticket, "MC_ISOLATION_READ_WRITE=/proc/self/task")
    product.systemctl("start", f"ticket@{ticket}", check=False)
    unit = product.unit(ticket)
    assert (unit["ActiveState"], unit["NRestarts"]) == ("failed", "0"), unit
    assert "sandbox could not be made" in unit["StatusText"]


def test_where_bubblewrap_does_not_work(product: Product) -> None:
    """By default it runs without, and that is said; who asked for isolation is refused instead."""
    product.machine.run(["mv", "/usr/bin/bwrap", "/usr/bin/bwrap.away"], user="root")
    try:
        ticket = product.new("free", "--driver", "command", "--", "sleep", "707")
        product.ctl("start", str(ticket))
        shown = product.show(ticket)["isolation"]
        assert (shown["mode"], shown["reason"]) == ("off", "bubblewrap is not installed")
        assert "isolation: bubblewrap is not installed" in product.ctl("doctor", check=False).stdout
        assert (
            "runs without isolation"
            in product.machine.run(
                ["journalctl", "--user", "-u", f"ticket@{ticket}", "-o", "cat"]
            ).stdout
        )
        product.ctl("stop", str(ticket))
        strict = product.new(
            "strict", "--isolation", "workspace", "--driver", "command", "--", "sleep", "708"
        )
        product.systemctl("start", f"ticket@{strict}", check=False)
        unit = product.unit(strict)
        assert (unit["ExecMainStatus"], unit["NRestarts"]) == ("78", "0")
        assert "bubblewrap is not installed" in unit["StatusText"]
    finally:
        product.machine.run(["mv", "/usr/bin/bwrap.away", "/usr/bin/bwrap"], user="root")


def test_a_credential_of_its_unit_can_be_read(product: Product) -> None:
    """LoadCredential= in a drop-in, as SECURITY.md says: there inside, and nowhere else in /run."""
    folder = f"{HOME}/.config/systemd/user/ticket@.service.d"
    product.machine.sh(f"umask 077; echo open-sesame > {HOME}/.api-key; mkdir -p {folder}")
    text = f"[Service]\nLoadCredential=api:{HOME}/.api-key\n"
    product.machine.run(["sh", "-c", f"cat > {folder}/key.conf"], input=text)
    try:
        product.systemctl("daemon-reload")
        inside = Inside(product)
        done = inside.run("cat $CREDENTIALS_DIRECTORY/api; ls /run/user/*/ | grep -v credentials")
        assert done.stdout.split()[0] == "open-sesame", done.stdout
        assert "bus" not in done.stdout
    finally:
        product.machine.sh(f"rm {folder}/key.conf")
        product.systemctl("daemon-reload")


def test_the_terminal_is_one(product: Product) -> None:
    """Job control, and the size that the pane has."""
    ticket = product.new("shell", "--driver", "command", "--", "bash", "--norc", "-i")
    product.ctl("start", str(ticket))
    target = f"=ticket-{ticket}:"
    product.type(ticket, "sleep 709")
    product.machine.wait_for(lambda: runs(product, "sleep 709"), what="a job")
    product.machine.run(["tmux", "send-keys", "-t", target, "C-z"])
    product.wait_screen(ticket, "Stopped")
    product.type(ticket, "kill %1; wait; trap 'echo size $(stty size)' WINCH; echo rea''dy")
    product.wait_screen(ticket, "ready")
    product.machine.run(["tmux", "resize-window", "-t", target, "-x", "91", "-y", "33"])
    product.type(ticket, "true")
    product.wait_screen(ticket, "size 33 91")


def runs(product: Product, command: str) -> bool:
    """Whether a command line is exactly that."""
    return any(line.strip() == command for line in product.command_lines())


def drop_in(product: Product, ticket: int, assignment: str) -> None:
    """One variable of one ticket's unit."""
    folder = f"{HOME}/.config/systemd/user/ticket@{ticket}.service.d"
    product.machine.run(
        ["sh", "-c", f"mkdir -p {folder}; cat > {folder}/e.conf"],
        input=f"[Service]\nEnvironment={assignment}\n",
    )
    product.systemctl("daemon-reload")


@pytest.mark.parametrize(("network", "own", "outer"), [
    ("full", True, True), ("loopback", True, False), ("none", False, False),
])  # fmt: skip
def test_the_network(product: Product, network: str, *, own: bool, outer: bool) -> None:
    """The machine's, a loopback of its own, or nothing at all."""
    ticket = product.new("net", "--driver", "command", "--", "sleep", "710")
    drop_in(product, ticket, f"MC_ISOLATION_NETWORK={network}")
    inside = """
import socket
def reaches(port):
    try:
        socket.create_connection(("127.0.0.1", port), 2).close()
    except OSError:
        return False
    return True
try:
    server = socket.create_server(("127.0.0.1", 0))
    own = reaches(server.getsockname()[1])
except OSError:
    own = False
print("found", own, reaches(3001), flush=True)
"""
    other = product.new(
        "net",
        "--driver",
        "command",
        "--",
        "python3",
        "-c",
        inside + "\nimport time; time.sleep(711)",
    )
    drop_in(product, other, f"MC_ISOLATION_NETWORK={network}")
    product.ctl("start", str(other))
    product.wait_screen(other, f"found {own} {outer}")
    assert product.show(other)["isolation"]["network"] == network
    product.ctl("stop", str(other))
