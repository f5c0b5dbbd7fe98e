"""Worktrees of every kind of repository on a booted machine, and what may be wrong with one.

Faults 12, 23, 24 and 25 as an operator meets them: ticketctl, systemctl and the API.
"""

from __future__ import annotations

import json
import shutil
import time
from pathlib import Path
from typing import Any

import pytest

from tests.faults.record import Drill
from tests.machine.cache import Layer
from tests.machine.fixtures import NewMachine
from tests.machine.product import GATEWAY, HOME, STATE, Product

SLEEPER = ["--driver", "command", "--", "sleep", "1000"]
GIT_LFS = "/usr/bin/git-lfs"
DIFF_S = 20.0
IDENTITY = "git config --global user.email op@example.org; git config --global user.name op"


@pytest.fixture(scope="module")
def product(installed: Layer, module_machines: NewMachine) -> Product:
    """One machine for the tests of this module, with the host's Git LFS if it has one."""
    binds: dict[str | Path, str] = {GIT_LFS: GIT_LFS} if Path(GIT_LFS).exists() else {}
    made = Product(module_machines(installed, binds=binds))
    made.machine.sh(f"{IDENTITY}; git config --global protocol.file.allow always")
    return made


def started(product: Product, repo: str, *args: str) -> tuple[int, str]:
    """A running ticket with a worktree, and where that is."""
    ticket = product.new("work", "--repo", repo, *args, *SLEEPER)
    product.ctl("start", str(ticket))
    return ticket, product.show(ticket)["worktree_path"]


def end(product: Product, ticket: int) -> None:
    """Makes room for the next."""
    product.ctl("close", str(ticket), "--force")


def repository(product: Product, shape: str) -> tuple[str, str]:
    """A repository of some shape, and the file that its worktrees have."""
    folder = f"{HOME}/shapes/{shape}"
    plain = product.make_repository(f"{folder}/demo")
    script = {
        "bare": "git clone -q --bare demo demo.git; echo demo.git",
        "dot-bare": "mkdir all; git clone -q --bare demo all/.bare; echo gitdir: ./.bare > all/.git; echo all",
        "detached": "git -C demo checkout -q --detach; echo demo",
        "sha256": "git init -q -b main --object-format=sha256 other; cd other; echo hello > README;"
        " git add README; git commit -qm first; echo other",
        "submodule": "git init -q -b main in; echo in > in/file; git -C in add file; git -C in commit -qm in;"
        f" cd demo; git submodule --quiet add {folder}/in sub; git commit -qm sub; echo demo",
        "lfs": "cd demo; git lfs install --local >/dev/null; git lfs track '*.bin' >/dev/null;"
        " head -c 300000 /dev/zero > a.bin; git add -A; git commit -qm lfs; echo demo",
    }[shape]  # fmt: skip
    name = product.machine.sh(f"cd {folder}; {script}").stdout.split()[-1]
    assert plain
    return f"{folder}/{name}", {"submodule": "sub/file", "lfs": "a.bin"}.get(shape, "README")


@pytest.mark.parametrize("shape", ["bare", "dot-bare", "detached", "sha256", "submodule", "lfs"])
def test_a_repository_of_every_shape(product: Product, shape: str) -> None:
    """Started, worked in, diffed, closed, opened again: the same for all of them."""
    if shape == "lfs" and shutil.which(GIT_LFS) is None:
        pytest.skip("git-lfs is not installed here")
    repo, file = repository(product, shape)
    ticket, path = started(product, repo)
    product.machine.wait_for(lambda: product.read(f"{path}/{file}"), what=f"{file} in the worktree")
    if shape == "lfs":
        assert product.machine.sh(f"stat -c %s {path}/a.bin").stdout == "300000\n"
    assert json.loads(product.ctl("diff", str(ticket), "--json").stdout)["files"] == []
    product.machine.sh(
        f"cd {path}; echo work > work; git add work; git commit -qm work; echo x > new"
    )
    stat = product.ctl("diff", str(ticket), "--stat").stdout
    assert [line.split("\t")[-1] for line in stat.splitlines()] == ["new", "work"]
    product.machine.sh(
        f"rm {path}/new; git -C {path} push -q --no-verify {repo} HEAD:refs/heads/kept-{ticket}"
    )
    product.ctl("close", str(ticket))
    assert product.machine.run(["test", "-e", path], check=False).returncode
    product.ctl("reopen", str(ticket), "--start")
    assert product.read(f"{path}/work") == "work\n"
    product.machine.wait_for(lambda: product.read(f"{path}/{file}"), what=f"{file} again")
    end(product, ticket)


def test_a_repository_without_a_commit_is_told_so(product: Product) -> None:
    """An unborn HEAD: refused when the ticket is made, with the command that helps."""
    product.machine.sh(f"git init -q {HOME}/unborn")
    done = product.ctl("new", "x", "--repo", f"{HOME}/unborn", check=False)
    assert done.returncode == 2
    assert "has no commit 'HEAD'" in done.stderr
    assert "commit --allow-empty" in done.stderr
    done = product.ctl(
        "new", "x", "--repo", product.make_repository(), "--base", "nope", check=False
    )
    assert done.returncode == 2
    assert "has no commit 'nope'" in done.stderr


@pytest.mark.fault(23)
def test_what_is_in_the_way_is_named_and_nothing_is_forced(product: Product, drill: Drill) -> None:
    """Branch, path, registration, ref lock: each in the unit's status with what to do; then it starts."""
    repo = product.make_repository(f"{HOME}/way/demo")
    ways = {
        "branch {b} exists already": ("git branch {b}", "git branch -D {b}"),
        "exists and is no worktree": ("mkdir {p}; echo mine > {p}/file", "mv {p} {p}.old"),
        "was deleted, but git still has it": (
            "git worktree add -q -b {b} {p}; rm -r {p}", "git worktree prune; git branch -D {b}",
        ),
        "Another git is at work": ("touch .git/refs/heads/{b}.lock", "rm .git/refs/heads/{b}.lock"),
    }  # fmt: skip
    for said, (make, mend) in ways.items():
        ticket = product.new("work", "--repo", repo, *SLEEPER)
        names = {"b": f"ticket-{ticket}", "p": f"{HOME}/way/wt/ticket-{ticket}"}
        product.machine.sh(f"mkdir -p {HOME}/way/wt; cd {repo}; {make.format(**names)}")
        product.systemctl("start", f"ticket@{ticket}", check=False)
        unit = product.unit(ticket)
        assert (unit["ExecMainStatus"], unit["NRestarts"]) == ("78", "0"), said
        assert said.format(**names) in unit["StatusText"]
        assert said.format(**names) in product.ctl("start", str(ticket), check=False).stderr
        if "no worktree" in said:
            assert product.read(f"{names['p']}/file") == "mine\n"
        with drill.recovery():
            product.machine.sh(f"cd {repo}; {mend.format(**names)}")
            product.ctl("start", str(ticket))
        end(product, ticket)


@pytest.mark.fault(23)
def test_a_worktree_deleted_under_its_worker(product: Product, drill: Drill) -> None:
    """Fault 23: told while it runs; a restart says what to do, and does nothing else; then it starts."""
    repo = product.make_repository(f"{HOME}/deleted/demo")
    ticket, path = started(product, repo)
    pid = product.main_pid(ticket)
    product.machine.sh(f"rm -rf {path}")
    product.systemctl("start", "mc-heartbeat.service")
    warned = product.machine.run(
        ["journalctl", "--user", "-o", "cat", "TICKET_EVENT=warning"]
    ).stdout
    assert f"{path} of ticket {ticket} is gone while its worker runs" in warned
    assert product.main_pid(ticket) == pid
    done = product.ctl("diff", str(ticket), check=False)
    assert done.returncode in {5, 78}
    assert done.stderr
    done = product.ctl("restart", str(ticket), check=False)
    assert "was deleted, but git still has it" in done.stderr + product.unit(ticket)["StatusText"]
    hint = product.machine.journal(user_unit=f"ticket@{ticket}.service")
    command = next(line for line in hint.splitlines() if "worktree prune" in line)
    command = "git -C " + command.partition("git -C ")[2]
    with drill.recovery():
        product.machine.sh(command)
        product.ctl("start", str(ticket))
    # a lock that a killed git left stops no start, and is told
    product.machine.sh(f"touch $(git -C {path} rev-parse --git-dir)/index.lock")
    product.ctl("restart", str(ticket))
    assert "index.lock exists" in product.machine.journal(user_unit=f"ticket@{ticket}.service")
    done = product.ctl("close", str(ticket), check=False)
    assert done.returncode == 5
    assert "index.lock" in done.stderr
    end(product, ticket)


@pytest.mark.fault(12)
def test_a_full_disk_is_said_and_leaves_nothing_half_made(product: Product) -> None:
    """On a small tmpfs: no worktree and no branch stay; with space it starts. No archive, no close."""
    repo = product.make_repository(f"{HOME}/full/demo")
    product.machine.sh(
        f"cd {repo}; head -c 3000000 /dev/urandom > big; git add big; git commit -qm big; mkdir -p ../wt"
    )
    product.machine.sh(
        f"mount -t tmpfs -o size=1m,uid=1000,mode=755 tmpfs {HOME}/full/wt", user="root"
    )
    ticket = product.new("work", "--repo", repo, *SLEEPER)
    done = product.ctl("start", str(ticket), check=False)
    assert done.returncode == 5
    assert "could not be written: unable to write file big; 1 MiB are free there" in done.stderr
    assert "ticketctl gc" in product.machine.journal(user_unit=f"ticket@{ticket}.service")
    assert product.machine.sh(f"ls -A {HOME}/full/wt").stdout == ""
    assert product.machine.sh(f"git -C {repo} branch --list 'ticket-*'; git -C {repo} worktree list | wc -l").stdout == "1\n"  # fmt: skip
    product.machine.sh(f"mount -o remount,size=100m {HOME}/full/wt", user="root")
    product.ctl("start", str(ticket))
    # the archive does not fit: the ticket is not closed, and its worktree is as it was
    product.machine.sh(f"head -c 2000000 /dev/urandom > {HOME}/full/wt/ticket-{ticket}/notes; cd {repo}; echo notes > .git/info/exclude")  # fmt: skip
    product.machine.sh(f"mkdir -p {STATE}/archive; mount -t tmpfs -o size=1m,uid=1000,mode=700 tmpfs {STATE}/archive", user="root")  # fmt: skip
    done = product.ctl("close", str(ticket), check=False)
    assert done.returncode == 78
    assert "space" in done.stderr
    assert product.show(ticket)["status"] != "closed"
    assert product.machine.sh(f"stat -c %s {HOME}/full/wt/ticket-{ticket}/notes; ls -A {STATE}/archive").stdout == "2000000\n"  # fmt: skip
    product.machine.sh(f"umount {STATE}/archive", user="root")
    product.ctl("close", str(ticket))
    product.machine.sh(f"umount {HOME}/full/wt", user="root")


@pytest.mark.fault(25)
def test_a_diff_is_bounded_and_runs_nothing(product: Product) -> None:
    """Fault 25: two gigabytes, a FIFO, a link out of the tree, a hostile configuration; CLI and API."""
    repo = product.make_repository(f"{HOME}/hostile/demo")
    ticket, path = started(product, repo)
    product.machine.sh(
        "printf '#!/bin/sh\\ntouch /tmp/pwned\\ncat\\n' > /tmp/evil; chmod +x /tmp/evil;"
        f" cd {path}; truncate -s 2G huge README; mkfifo fifo; ln -s /etc/passwd out;"
        " printf '* filter=evil diff=evil\\n' > .gitattributes; echo small > small;"
        " for key in core.fsmonitor diff.external diff.evil.textconv diff.evil.command filter.evil.clean"
        " filter.evil.process core.pager core.sshCommand; do git config $key /tmp/evil; done;"
        " mkdir hooks; cp /tmp/evil hooks/post-index-change; git config core.hooksPath $PWD/hooks;"
        " rm -f /tmp/pwned"
    )
    begun = time.monotonic()
    found = json.loads(product.ctl("diff", str(ticket), "--json").stdout)
    files = {f["path"]: f for f in found["files"]}
    assert found["truncated"]
    assert files["huge"]["omitted"] == files["README"]["omitted"] == f"{2 << 30} bytes"
    assert files["out"]["hunks"][0]["lines"][0] == "+/etc/passwd"
    assert files["small"]["hunks"][0]["lines"] == ["+small"]
    patch = product.ctl("diff", str(ticket)).stdout
    assert len(patch) < 10_000
    assert "root:" not in patch
    stat = product.ctl("diff", str(ticket), "--stat").stdout
    assert f"{2 << 30} bytes\thuge" in stat
    status, answer = api(product, "GET", f"/api/ticket/{ticket}/diff")
    assert (status, answer["truncated"]) == (200, True)
    assert time.monotonic() - begun < DIFF_S
    product.systemctl("start", "mc-heartbeat.service")
    assert product.machine.run(["test", "-e", "/tmp/pwned"], check=False).returncode
    product.machine.sh(f"cd {path}; git config --unset core.fsmonitor; rm -f huge README fifo")
    end(product, ticket)


def test_board_and_list_show_how_it_stands(product: Product) -> None:
    """Ahead, behind, not committed, conflicts and disk use: list, API and page, after a heartbeat."""
    repo = product.make_repository(f"{HOME}/stands/demo")
    ticket, path = started(product, repo)
    product.machine.sh(
        f"cd {path}; echo theirs > README; git commit -qam theirs; echo a > a; git add a; git commit -qm a;"
        f" echo b > b; head -c 5000000 /dev/urandom > big; cd {repo}; echo ours > README; git commit -qam ours"
    )
    product.systemctl("start", "mc-heartbeat.service")
    row = next(r for r in product.ctl("list").stdout.splitlines() if r.startswith(f"{ticket}\t"))
    assert row.split("\t")[5:7] == ["+2 -1 *2 !1", "5 MiB"]
    assert "+2 -1 *2 !1 (5 MiB on disk)" in product.ctl("show", str(ticket)).stdout
    status, answer = api(product, "GET", f"/api/ticket/{ticket}")
    assert status == 200
    assert answer["git"] == {
        "ahead": 2, "behind": 1, "dirty": 2, "untracked": 2, "conflicts": ["README"],
        "text": "+2 -1 *2 !1",
    }  # fmt: skip
    assert 5_000_000 < answer["disk_bytes"] < 6_000_000
    end(product, ticket)
    product.systemctl("start", "mc-heartbeat.service")
    assert product.show(ticket)["git_state"] is None


def test_a_merge_is_one_change_or_none(product: Product) -> None:
    """Refused, with names, where the base's checkout is not clean or the two conflict; then each way."""
    repo = product.make_repository(f"{HOME}/merge/demo")
    ticket, path = started(product, repo)
    product.machine.sh(f"cd {path}; echo theirs > README; git commit -qam theirs")
    main = f"git -C {repo} rev-parse main"

    def refused(*how: str) -> str:
        before = product.machine.sh(main).stdout
        done = product.ctl("merge", str(ticket), *how, check=False)
        assert done.returncode == 5
        assert product.machine.sh(main).stdout == before
        return done.stderr

    product.machine.sh(f"echo dirty >> {repo}/README")
    assert "has changes: README" in refused()
    product.machine.sh(f"cd {repo}; echo ours > README; git commit -qam ours")
    assert "conflicts in README" in refused()
    assert "no fast-forward" in refused("--ff")
    product.machine.sh(f"cd {repo}; git reset -q --hard HEAD~1")
    product.ctl("merge", str(ticket), "--ff")
    assert product.machine.sh(main).stdout == product.machine.sh(f"git -C {path} rev-parse HEAD").stdout  # fmt: skip
    assert product.read(f"{repo}/README") == "theirs\n"
    for how, parents in (("--merge", 2), ("--squash", 1)):
        product.machine.sh(f"cd {path}; echo {how} > file; git add file; git commit -qm {how[2:]}")
        product.ctl("merge", str(ticket), how)
        told = product.machine.sh(f"git -C {repo} log -1 --format=%P; cat {repo}/file; git -C {repo} status --porcelain").stdout  # fmt: skip
        assert len(told.splitlines()[0].split()) == parents
        assert told.splitlines()[1:] == [how]
    end(product, ticket)


def test_a_pull_request_with_gh_and_without(product: Product) -> None:
    """Pushed, never by force; gh opens it where gh is, else the page's address is printed."""
    repo = product.make_repository(f"{HOME}/pr/demo")
    product.machine.sh(
        f"git init -q --bare {HOME}/pr/remote.git; cd {repo};"
        f" git config url.{HOME}/pr/remote.git.pushInsteadOf https://git.example.org/me/demo.git;"
        " git remote add origin https://git.example.org/me/demo.git; git push -q origin main"
    )
    ticket, path = started(product, repo)
    product.machine.sh(f"cd {path}; echo work > work; git add work; git commit -qm work")
    done = product.ctl("pr", str(ticket))
    page = f"https://git.example.org/me/demo/compare/main...ticket-{ticket}?expand=1"
    assert done.stdout.strip() == page
    assert "gh is not installed" in done.stderr
    assert product.machine.sh(f"git -C {HOME}/pr/remote.git rev-parse ticket-{ticket}").stdout == product.machine.sh(f"git -C {path} rev-parse HEAD").stdout  # fmt: skip
    gh = f"{HOME}/.local/bin/gh"
    product.machine.run(
        ["sh", "-c", f"cat > {gh}; chmod +x {gh}"],
        input='#!/bin/sh\nprintf "%s\\n" "$@" > /tmp/gh.args\necho https://git.example.org/me/demo/pull/7\n',
    )
    search = product.machine.sh("echo $PATH").stdout.strip()
    done = product.machine.run(
        ["env", f"PATH={HOME}/.local/bin:{search}", f"{HOME}/.local/bin/ticketctl", "pr", str(ticket), "--body", "b"]
    )  # fmt: skip
    assert done.stdout == "https://git.example.org/me/demo/pull/7\n"
    assert product.read("/tmp/gh.args").split()[:6] == ["pr", "create", "--head", f"ticket-{ticket}", "--base", "main"]  # fmt: skip
    product.machine.sh(f"rm {gh}; git -C {path} commit -q --amend -m rewritten")
    done = product.ctl("pr", str(ticket), check=False)
    assert done.returncode == 5
    assert "Nothing was forced" in done.stderr
    end(product, ticket)


@pytest.mark.fault(24)
def test_twenty_over_the_api_are_ten(product: Product, drill: Drill) -> None:
    """Fault 24: twenty at once, made and started; ten run, ten are told 409 and what to do."""
    for ticket in json.loads(product.ctl("list", "--json").stdout):
        end(product, ticket["id"])
    repo = product.make_repository(f"{HOME}/rush/demo")
    body = {"repo": repo, "driver": "command", "command": ["sleep", "1000"], "start": True}
    made = api_all(
        product, [("POST", "/api/tickets", {**body, "title": f"n{n}"}) for n in range(20)]
    )
    assert [status for status, _ in made] == [201] * 20
    problems = [answer["start_problem"] for _, answer in made if answer["start_problem"]]
    assert len(problems) == 10
    for problem in problems:
        assert problem["problem"] == "conflict"
        assert "10 of 10 worktrees are in use. Idle the longest: ticket " in problem["message"]
    assert len(product.machine.sh(f"ls {HOME}/rush/wt").stdout.split()) == 10
    drill.tried = len(made)
    waiting = [answer["id"] for _, answer in made if answer["start_problem"]]
    again = api_all(product, [("POST", f"/api/ticket/{n}/start", {}) for n in waiting])
    assert [status for status, _ in again] == [409] * 10
    assert all("10 of 10 worktrees" in answer["message"] for _, answer in again)
    assert len(product.machine.sh(f"ls {HOME}/rush/wt").stdout.split()) == 10
    running = next(answer["id"] for _, answer in made if not answer["start_problem"])
    assert api(product, "POST", f"/api/ticket/{running}/close", {})[0] == 200
    assert api(product, "POST", f"/api/ticket/{waiting[0]}/start", {})[0] == 200
    assert api(product, "POST", f"/api/ticket/{waiting[1]}/start", {})[0] == 409


_CLIENT = """
import json, sys, threading, urllib.error, urllib.request
token = open(sys.argv[1]).read().strip()
wanted, found = json.load(sys.stdin), {}
barrier = threading.Barrier(len(wanted))
def ask(number, method, path, body):
    data = None if method == "GET" else json.dumps(body).encode()
    head = {"Authorization": f"Bearer {token}", "Content-Type": "application/json"}
    request = urllib.request.Request(sys.argv[2] + path, data=data, headers=head, method=method)
    barrier.wait()
    try:
        with urllib.request.urlopen(request, timeout=100) as answer:
            found[number] = answer.status, json.load(answer)
    except urllib.error.HTTPError as error:
        found[number] = error.code, json.load(error)
threads = [threading.Thread(target=ask, args=(n, *w)) for n, w in enumerate(wanted)]
[t.start() for t in threads]
[t.join() for t in threads]
print(json.dumps([found[n] for n in range(len(wanted))]))
"""


def api_all(product: Product, wanted: list[tuple[str, str, dict[str, Any]]]) -> list[Any]:
    """Asks the gateway all of it at the same moment, as a program with the token."""
    done = product.machine.run(
        ["python3", "-c", _CLIENT, f"{STATE}/token", GATEWAY], input=json.dumps(wanted), timeout=120
    )
    found: list[Any] = json.loads(done.stdout)
    return found


def api(product: Product, method: str, path: str, body: dict[str, Any] | None = None) -> Any:
    """One request: status and answer."""
    return api_all(product, [(method, path, body or {})])[0]
