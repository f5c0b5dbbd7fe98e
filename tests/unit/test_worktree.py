"""Worktrees: made where they should be, never over anything, never more than the cap."""

from __future__ import annotations

import os
import shutil
import subprocess
import threading
from dataclasses import replace
from pathlib import Path

import pytest

from orchestrator import config as configuration
from orchestrator import diff, finish, loss, worktree, worktree_include
from orchestrator.config import Config
from orchestrator.config_tables import Worktree
from orchestrator.errors import ConfigError, Conflict, InvalidInput, TicketError
from orchestrator.store import tickets, worktrees
from orchestrator.store.db import Database
from orchestrator.store.tickets import Ticket
from orchestrator.workplace import ensure_workplace, setup_lines, setup_mark
from tests.unit.repositories import canary, commit, git, repository


@pytest.fixture
def repo(tmp_path: Path) -> Path:
    """A repository with a commit."""
    return repository(tmp_path / "src" / "demo")


@pytest.fixture
def config(tmp_path: Path) -> Config:
    """A configuration of the test's own."""
    environ = {"HOME": str(tmp_path), "XDG_RUNTIME_DIR": str(tmp_path / "run")}
    return configuration.load(environ)


def code_ticket(database: Database, repo: Path, title: str = "work") -> Ticket:
    """A ticket that wants a worktree."""
    return tickets.create(database, title=title, repo_path=str(repo), driver="demo")


def made(config: Config, database: Database, ticket: Ticket) -> Path:
    """Its workplace; what is said besides is nobody's."""
    return ensure_workplace(config, database, ticket, warn=lambda _: None)[0]


def test_a_code_ticket_gets_a_worktree_and_another_none(
    config: Config, database: Database, repo: Path
) -> None:
    """../wt/ticket-N on branch ticket-N from HEAD; a chat ticket gets a folder of its own."""
    ticket = code_ticket(database, repo)
    path, base = ensure_workplace(config, database, ticket, warn=print)
    assert path == repo.parent / "wt" / f"ticket-{ticket.id}"
    assert base == git(repo, "rev-parse", "HEAD") == git(path, "rev-parse", "HEAD")
    assert git(path, "branch", "--show-current") == f"ticket-{ticket.id}"
    assert ensure_workplace(config, database, ticket, warn=print) == (path, base)
    chat = tickets.create(database, title="talk", driver="demo")
    assert ensure_workplace(config, database, chat, warn=print) == (
        config.ticket_paths(chat.id).chat_folder, None,
    )  # fmt: skip
    assert len(worktrees.active(database)) == 1


def test_path_and_branch_follow_the_templates(
    config: Config, database: Database, repo: Path
) -> None:
    """And a template that gives every ticket the same place is refused at load."""
    ours = replace(config, worktree=Worktree(path="../x/{id}", branch="mc/{id}/work"))
    ticket = code_ticket(database, repo)
    path = made(ours, database, ticket)
    assert path == repo.parent / "x" / str(ticket.id)
    assert git(path, "branch", "--show-current") == f"mc/{ticket.id}/work"
    for key, value in {"PATH": "../wt/same", "BRANCH": "$(id)-{id}"}.items():
        with pytest.raises(ConfigError):
            configuration.load({"HOME": "/x", f"MC_WORKTREE_{key}": value})


@pytest.mark.parametrize("way", ["branch", "folder", "file", "link", "deleted", "lock", "repo"])
@pytest.mark.fault(23)
def test_what_is_in_the_way_is_named_and_left(
    config: Config, database: Database, repo: Path, way: str
) -> None:
    """A clear error with the command that mends it; nothing forced, no place held."""
    ticket = code_ticket(database, repo)
    path, branch = config.worktree_of(repo, ticket.id)
    path.parent.mkdir()
    said = {
        "branch": f"branch {branch} exists already",
        "folder": "exists and is no worktree",
        "file": "exists and is no worktree",
        "link": "exists and is no worktree",
        "deleted": "was deleted, but git still has it",
        "lock": "Another git is at work",
        "repo": "is gone",
    }[way]
    if way == "branch":
        git(repo, "branch", branch)
    elif way == "folder":
        path.mkdir()
        (path / "precious").write_text("x")
    elif way == "file":
        path.write_text("x")
    elif way == "link":
        path.symlink_to("nowhere")
    elif way == "deleted":
        git(repo, "worktree", "add", "-q", "-b", branch, str(path))
        subprocess.run(["rm", "-r", str(path)], check=True)
    elif way == "lock":
        (repo / f".git/refs/heads/{branch}.lock").touch()
    else:
        ticket = replace(ticket, base_sha="1" * 40)
        repo.rename(repo.with_name("elsewhere"))
    with pytest.raises(TicketError, match=said) as caught:
        ensure_workplace(config, database, ticket, warn=print)
    assert caught.value.hint
    # a folder in the way keeps the place: it may be what an earlier start made
    assert len(worktrees.active(database)) == (1 if os.path.lexists(path) else 0)
    if way == "folder":
        assert (path / "precious").read_text() == "x"


def test_a_failed_checkout_leaves_nothing_behind(
    config: Config, database: Database, repo: Path, tmp_path: Path
) -> None:
    """A filter that is not there, a full disk: the next try does not stumble over the first."""
    (repo / ".gitattributes").write_text("big filter=own\n")
    (repo / "big").write_text("x\n")
    commit(repo)
    git(repo, "config", "filter.own.smudge", "false")
    git(repo, "config", "filter.own.required", "true")
    ticket = code_ticket(database, repo)
    with pytest.raises(ConfigError, match="big"):
        ensure_workplace(config, database, ticket, warn=print)
    assert worktrees.active(database) == []
    program, trace = canary(tmp_path, "smudge")
    git(repo, "config", "filter.own.smudge", str(program))
    path = made(config, database, ticket)
    assert (path / "big").read_text() == "x\n"
    assert trace.exists()  # the operator's own filter, as in a checkout by hand


@pytest.mark.skipif(shutil.which("git-lfs") is None, reason="git-lfs is not installed")
def test_files_of_git_lfs_are_there_and_are_no_change(
    config: Config, database: Database, repo: Path, tmp_path: Path
) -> None:
    """With the real Git LFS: the worktree has the content, and diff and push know what it is."""
    git(repo, "lfs", "install", "--local")
    git(repo, "lfs", "track", "*.bin")
    (repo / "a.bin").write_bytes(bytes(200_000))
    commit(repo)
    assert "git-lfs" in git(repo, "show", "HEAD:a.bin")
    ticket = code_ticket(database, repo)
    path, base = ensure_workplace(config, database, ticket, warn=lambda _: None)
    assert base is not None
    assert (path / "a.bin").read_bytes() == bytes(200_000)
    assert diff.diff(repo, path, base).files == ()
    (path / "b.bin").write_bytes(b"more" * 100)
    commit(path)
    (changed,) = diff.diff(repo, path, base).files
    assert changed.path == "b.bin"
    assert loss.look(repo, path, branch=f"ticket-{ticket.id}").uncommitted == ()
    remote = tmp_path / "remote.git"
    git(tmp_path, "init", "-q", "--bare", str(remote))
    git(repo, "remote", "add", "origin", f"file://{remote}")
    finish.push(repo, f"ticket-{ticket.id}", "main")
    assert [p.stat().st_size for p in (remote / "lfs/objects").rglob("*") if p.is_file()] != []


def test_hooks_are_not_run(config: Config, database: Database, repo: Path) -> None:
    """A hook in the shared .git may be an agent's."""
    _, trace = canary(repo / ".git/hooks", "post-checkout")
    made(config, database, code_ticket(database, repo))
    assert not trace.exists()


@pytest.mark.parametrize("shape", ["bare", "dot-bare", "detached", "unborn", "submodule"])
def test_repositories_of_every_shape(
    config: Config, database: Database, repo: Path, tmp_path: Path, shape: str
) -> None:
    """A worktree of each, or one sentence that says what is missing."""
    if shape in {"bare", "dot-bare"}:
        bare = tmp_path / "there" / (".bare" if shape == "dot-bare" else "demo.git")
        git(tmp_path, "clone", "-q", "--bare", str(repo), str(bare))
        if shape == "dot-bare":
            (bare.parent / ".git").write_text("gitdir: ./.bare\n")
            repo = bare.parent
        else:
            repo = bare
        assert worktree.find_repository(repo) == repo
    elif shape == "detached":
        git(repo, "checkout", "-q", "--detach")
    elif shape == "submodule":
        inner = repository(tmp_path / "inner")
        git(repo, "-c", "protocol.file.allow=always", "submodule", "add", "-q", str(inner), "sub")
        commit(repo)
    else:
        repo = tmp_path / "empty"
        repo.mkdir()
        git(repo, "init", "-q")
        with pytest.raises(InvalidInput, match="no commit 'HEAD'") as caught:
            worktree.commit_of(repo, "HEAD")
        assert "commit --allow-empty" in caught.value.hint
        return
    path = made(config, database, code_ticket(database, repo))
    assert (path / "README").read_text() == "hello\n"


@pytest.mark.parametrize("ref", ["-x", "--output=x", "$(id)", "a;rm", "a b", "", "a\nb", "x:y"])
def test_a_base_that_is_no_name_reaches_no_git(repo: Path, ref: str) -> None:
    """An option, a shell word, a path of a tree: refused by our own pattern."""
    with pytest.raises(InvalidInput):
        worktree.commit_of(repo, ref)


def test_worktreeinclude_copies_ignored_files_only(
    config: Config, database: Database, repo: Path, tmp_path: Path
) -> None:
    """What git ignores and the file names; nothing tracked, nothing outside, nothing overwritten."""
    (repo / ".gitignore").write_text(".env*\nsecrets/\n*.log\nlinked\n")
    (repo / ".worktreeinclude").write_text(".env*\nsecrets/\nREADME\nlinked\n!.env.no\n")
    outside = tmp_path / "outside"
    outside.mkdir()
    (repo / "to").symlink_to(outside)
    commit(repo)
    for name in (".env", ".env.local", ".env.no", "secrets/a/key", "x.log", "untracked"):
        (repo / name).parent.mkdir(parents=True, exist_ok=True)
        (repo / name).write_text(name)
    (repo / "linked").symlink_to("/etc/passwd")
    (repo / ".env").chmod(0o600)
    path = made(config, database, code_ticket(database, repo))
    assert git(path, "status", "--porcelain") == ""
    assert (path / ".env").stat().st_mode & 0o777 == 0o600
    assert (path / "secrets/a/key").read_text() == "secrets/a/key"
    assert os.readlink(path / "linked") == "/etc/passwd"
    assert not (path / "x.log").exists()
    assert not (path / ".env.no").exists()
    assert not (path / "untracked").exists()
    assert not worktree_include._copy(repo / ".env", path, "to/.env")
    assert not list(outside.iterdir())


def test_setup_runs_once_where_it_is_seen(config: Config, database: Database, repo: Path) -> None:
    """In the worktree, before the agent, its output in the pane; a failure stops the start."""
    ours = replace(config, worktree=Worktree(setup="echo 'it is' $((1 + 1)) && pwd"))
    ticket = code_ticket(database, repo)
    path = made(ours, database, ticket)
    paths = ours.ticket_paths(ticket.id)
    paths.agent_folder.mkdir(parents=True)

    def run(chosen: Config) -> tuple[int, str]:
        script = "\n".join([*setup_lines(chosen, paths), "echo agent"])
        done = subprocess.run(
            ["sh", "-c", script], cwd=path, capture_output=True, text=True, check=False
        )
        return done.returncode, done.stdout

    failing = replace(config, worktree=Worktree(setup="echo no; exit 7"))
    assert run(failing) == (
        7,
        "$ echo no; exit 7\nno\nmission-control: setup failed with status 7\n",
    )
    assert run(ours) == (0, f"$ echo 'it is' $((1 + 1)) && pwd\nit is 2\n{path}\nagent\n")
    assert run(ours) == (0, "agent\n")
    assert setup_mark(paths).exists()


@pytest.mark.fault(24)
def test_twenty_at_once_are_exactly_ten(config: Config, database: Database, repo: Path) -> None:
    """The cap holds against races; the rest are told which are the oldest idle ones."""
    wanted = [code_ticket(database, repo, f"number {n}") for n in range(20)]
    refused: list[Conflict] = []
    barrier = threading.Barrier(len(wanted))

    def start(ticket: Ticket) -> None:
        barrier.wait()
        try:
            ensure_workplace(config, database, ticket, warn=lambda _: None)
        except Conflict as error:
            refused.append(error)

    threads = [threading.Thread(target=start, args=(t,)) for t in wanted]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(refused) == 10
    assert len(worktrees.active(database)) == 10
    assert len(list((repo.parent / "wt").iterdir())) == 10
    assert "10 of 10 worktrees are in use. Idle the longest: ticket " in refused[0].message
    assert "ticketctl close" in refused[0].hint
    worktrees.release(database, worktrees.active(database)[0].ticket_id)
    late = next(t for t in wanted if not worktrees.of_ticket(database, t.id))
    made(config, database, late)


def test_two_tickets_never_share_a_path(database: Database, repo: Path) -> None:
    """The second claim of a path is refused, whatever the templates say."""
    claim = {"path": "/x", "repo_path": "/r", "branch": "b", "base_sha": "", "max_active": 5}
    first, second = code_ticket(database, repo).id, code_ticket(database, repo).id
    assert worktrees.claim(database, first, **claim)  # type: ignore[arg-type]
    assert not worktrees.claim(database, first, **claim)  # type: ignore[arg-type]
    with pytest.raises(Conflict, match=f"worktree of ticket {first}"):
        worktrees.claim(database, second, **claim)  # type: ignore[arg-type]


@pytest.mark.fault(23)
def test_a_lock_that_a_killed_git_left_is_told(
    config: Config, database: Database, repo: Path
) -> None:
    """It stops no restart after a crash: the agent sees git's own words, the journal has ours."""
    ticket = code_ticket(database, repo)
    path = made(config, database, ticket)
    (repo / ".git/worktrees" / path.name / "index.lock").touch()
    said: list[str] = []
    ensure_workplace(config, database, ticket, warn=said.append)
    assert "index.lock" in said[0]
