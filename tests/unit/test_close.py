"""Closing loses nothing: whatever is in the worktree is refused, kept, or said."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import tempfile
import threading
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from orchestrator import archive, close, gc, loss
from orchestrator import config as configuration
from orchestrator.config import Config
from orchestrator.errors import ConfigError, Conflict, TicketError
from orchestrator.reopen import reopen
from orchestrator.store import archives, events, tickets, worktrees
from orchestrator.store.db import Database
from orchestrator.store.tickets import Ticket
from orchestrator.workplace import ensure_workplace
from tests.unit.messes import HARMLESS, MESSES, contents, mess
from tests.unit.repositories import canary, commit, git, repository


@pytest.fixture
def repo(tmp_path: Path) -> Path:
    """A repository with some files."""
    made = repository(tmp_path / "src" / "demo")
    (made / ".gitignore").write_text("*.ignored\nnode_modules/\n")
    (made / "other").write_text("other\n")
    commit(made)
    return made


@pytest.fixture
def config(tmp_path: Path) -> Config:
    """A configuration of the test's own."""
    environ = {"HOME": str(tmp_path), "XDG_RUNTIME_DIR": str(tmp_path / "run")}
    return configuration.load(environ)


def started(config: Config, database: Database, repo: Path) -> tuple[Ticket, Path]:
    """A ticket with a worktree, a log and a sidecar, as after a run."""
    ticket = tickets.create(database, title="work", repo_path=str(repo), driver="demo")
    path, base = ensure_workplace(config, database, ticket, warn=lambda _: None)
    tickets.update(database, ticket.id, worktree_path=str(path), base_sha=base, status="open")
    paths = config.ticket_paths(ticket.id)
    paths.folder.mkdir(parents=True)
    paths.pane_log_path.write_bytes(b"\x1b[1mhello\x1b[0m\n" * 100)
    return tickets.get(database, ticket.id), path


def closed(config: Config, database: Database, ticket: Ticket, **options: bool) -> close.Closed:
    """Closes it; there is no unit to stop."""
    return close.close(config, database, ticket.id, stop=lambda _: None, **options)  # type: ignore[arg-type]


def test_a_clean_ticket_is_archived_and_its_worktree_goes(
    config: Config, database: Database, repo: Path
) -> None:
    """Sidecar, log and summary are in a verified archive with a manifest; the branch stays."""
    ticket, path = started(config, database, repo)
    events.record(database, ticket.id, "turn_end")
    done = closed(config, database, ticket)
    assert not path.exists()
    assert git(repo, "worktree", "list").count("\n") == 0
    assert git(repo, "branch", "--list", "ticket-*")
    manifest = archive.verify(done.archive)
    assert manifest["members"]["pane.log"]["size"] == 1400
    assert set(manifest["members"]) == {"pane.log", "summary.json"}
    listed = subprocess.run(
        ["tar", "--zstd", "-xOf", done.archive, "summary.json"], check=True, capture_output=True
    )
    summary = json.loads(listed.stdout)
    assert summary["turns"] == 1
    assert summary["commits"] == []
    assert done.archive.stat().st_mode & 0o777 == 0o600
    assert tickets.get(database, ticket.id).status == "closed"
    assert worktrees.active(database) == []
    assert not config.ticket_paths(ticket.id).pane_log_path.exists()
    with pytest.raises(Conflict, match="is closed"):
        closed(config, database, ticket)


def test_reopen_brings_back_worktree_files_and_log(
    config: Config, database: Database, repo: Path
) -> None:
    """The same path and branch, ignored files with their modes, the log; its own cap counts again."""
    ticket, path = started(config, database, repo)
    (path / "secret.ignored").write_text("s")
    (path / "secret.ignored").chmod(0o600)
    (path / "deep/er").mkdir(parents=True)
    (path / "deep/er/link.ignored").symlink_to("../../secret.ignored")
    (path / "node_modules").mkdir()
    (path / "node_modules/x").write_text("x")
    (path / "work").write_text("done\n")
    head = commit(path)
    git(repo, "merge", "-q", "--no-ff", "-m", "merge", "ticket-1")
    log = config.ticket_paths(ticket.id).pane_log_path.read_bytes()
    done = closed(config, database, ticket)
    assert done.notes == ["2 files that only the worktree had are in the archive"]
    git(repo, "branch", "-q", "-D", "ticket-1")  # tidied up by hand meanwhile
    reopen(config, database, ticket.id)
    assert git(path, "rev-parse", "HEAD") == head
    assert git(path, "branch", "--show-current") == "ticket-1"
    assert (path / "secret.ignored").read_text() == "s"
    assert (path / "secret.ignored").stat().st_mode & 0o777 == 0o600
    assert os.readlink(path / "deep/er/link.ignored") == "../../secret.ignored"
    assert not (path / "node_modules").exists()
    assert config.ticket_paths(ticket.id).pane_log_path.read_bytes() == log
    assert tickets.get(database, ticket.id).status == "open"
    assert [p.ticket_id for p in worktrees.active(database)] == [ticket.id]
    closed(config, database, ticket)  # and again
    assert len(archives.of_ticket(database, ticket.id)) == 2


# -- a hundred random trees ------------------------------------------------------------------------


@settings(max_examples=100, deadline=None, suppress_health_check=list(HealthCheck), database=None)
@given(messes=st.sets(st.sampled_from(MESSES), max_size=4), force=st.booleans())
def test_closing_a_random_tree_loses_nothing(
    database: Database, *, messes: set[str], force: bool
) -> None:
    """A hundred times: refused with all in place, or closed with all of it somewhere else."""
    with tempfile.TemporaryDirectory() as folder:
        home = Path(folder)
        config = configuration.load({"HOME": folder, "XDG_RUNTIME_DIR": f"{folder}/run"})
        config = replace(config, worktree=replace(config.worktree, max_active=1000))
        repo = repository(home / "src/demo")
        (repo / ".gitignore").write_text("*.ignored\nnode_modules/\n")
        (repo / "other").write_text("other\n")
        commit(repo)
        ticket, path = started(config, database, repo)
        with mess(repo, path, messes):
            before, head = contents(path), git(path, "rev-parse", "HEAD")
            try:
                closed(config, database, ticket, force=force)
            except Conflict:
                assert not force
                assert messes - HARMLESS, "nothing was in the way, and it was refused"
                assert contents(path) == before
                assert git(path, "rev-parse", "HEAD") == head
                assert tickets.get(database, ticket.id).status != "closed"
                return
        if not force:
            assert messes <= HARMLESS, "it was closed although something could be lost"
        assert not path.exists()
        # no commit is lost: something of the repository leads to it
        assert git(repo, "for-each-ref", "--contains", head), messes
        if force and "rebase" in messes:
            return
        reopen(config, database, ticket.id)
        after = contents(path)
        if "switched" in messes or "detached" in messes:
            git(path, "checkout", "-q", "--force", head)
            after = {**contents(path), **after}
        if "repository" in messes:  # given up by --force, and said
            before = {n: c for n, c in before.items() if not n.startswith("inner/")}
        if "deleted" in messes:
            after.pop(".gitignore", None)
        missing = {n: c for n, c in before.items() if after.get(n) != c}
        assert not missing, (messes, missing.keys())
        closed(config, database, ticket, force=True)


@pytest.mark.parametrize("left", ["nothing", "changed", "commit", "branch", "stash", "untracked"])
def test_a_submodule_goes_only_when_its_remote_has_it_all(
    config: Config, database: Database, repo: Path, tmp_path: Path, left: str
) -> None:
    """Its repository is the worktree's own: branches and stashes in it would go as well."""
    inner = repository(tmp_path / "inner")
    allow = ("-c", "protocol.file.allow=always")
    git(repo, *allow, "submodule", "--quiet", "add", str(inner), "sub")
    commit(repo)
    ticket, path = started(config, database, repo)
    git(path, *allow, "submodule", "--quiet", "update", "--init")
    sub = path / "sub"
    for key, value in {"name": "op", "email": "op@example.org"}.items():
        git(sub, "config", f"user.{key}", value)
    at = git(sub, "rev-parse", "HEAD")
    if left == "untracked":
        (sub / "new").write_text("new\n")
    elif left != "nothing":
        (sub / "README").write_text("changed\n")
    if left in {"commit", "branch"}:
        git(sub, "checkout", "-q", "-b", "work")
        commit(sub)
    if left == "branch":
        git(sub, "checkout", "-q", at)
    if left == "stash":
        git(sub, "stash", "-q")
    if left == "nothing":
        closed(config, database, ticket)
        assert not path.exists()
        return
    with pytest.raises(Conflict, match="sub"):
        closed(config, database, ticket)
    assert (sub / "README").read_text() == (
        "hello\n" if left in {"branch", "stash", "untracked"} else "changed\n"
    )


def test_every_mess_is_seen(config: Config, database: Database, repo: Path) -> None:
    """Each that is not harmless stops a close by itself, by its own name."""
    config = replace(config, worktree=replace(config.worktree, max_active=1000))
    for number, name in enumerate(sorted(set(MESSES) - HARMLESS)):
        copy = repo.with_name(f"copy-{number}")
        shutil.copytree(repo, copy)
        ours = replace(config, worktree=replace(config.worktree, path=f"../wt{number}/{{id}}"))
        ticket, path = started(ours, database, copy)
        with mess(copy, path, {name}), pytest.raises(Conflict, match="would lose work"):
            closed(config, database, ticket)
        assert path.exists(), name


def test_force_says_what_is_given_up(config: Config, database: Database, repo: Path) -> None:
    """And keeps what fits into the archive; commits on no branch get a name."""
    ticket, path = started(config, database, repo)
    git(path, "checkout", "-q", "--detach")
    (path / "x").write_text("x")
    head = commit(path)
    (path / "new").write_text("n")
    done = closed(config, database, ticket, force=True)
    assert done.lost == ["not tracked: new", "commits on no branch: 1"]
    assert git(repo, "rev-parse", f"refs/mission-control/ticket-{ticket.id}") == head
    assert archive.verify(done.archive)["members"]["worktree/new"]["size"] == 1


def test_a_worktree_can_be_left(config: Config, database: Database, repo: Path) -> None:
    """Closed, archived, the tree untouched; it keeps its place until gc finds it clean."""
    ticket, path = started(config, database, repo)
    (path / "new").write_text("n")
    done = closed(config, database, ticket, keep_worktree=True)
    assert not done.removed
    assert (path / "new").read_text() == "n"
    assert len(worktrees.active(database)) == 1

    def collect(*, do_it: bool) -> list[gc.Candidate]:
        return list(
            gc.collect(
                config, database, stop=lambda _: None, running_pids=lambda _: (), do_it=do_it
            )
        )

    assert "not tracked: new" in collect(do_it=True)[0].kept_because
    (path / "new").unlink()
    assert [(c.what, c.done) for c in collect(do_it=False)] == [("remove-worktree", False)]
    assert path.exists()
    assert [(c.what, c.done) for c in collect(do_it=True)] == [("remove-worktree", True)]
    assert not path.exists()
    assert worktrees.active(database) == []


def test_gc_closes_what_was_quiet_and_says_so_first(
    config: Config, database: Database, repo: Path
) -> None:
    """Dry first; running, recent and dirty tickets stay, each with its reason."""
    quiet, quiet_path = started(config, database, repo)
    dirty, dirty_path = started(config, database, repo)
    (dirty_path / "new").write_text("n")
    running, _ = started(config, database, repo)
    database.query("UPDATE tickets SET created_at = now() - interval '30 days'")
    recent, _ = started(config, database, repo)
    stopped: list[int] = []
    looked_at: list[int] = []

    def collect(*, do_it: bool) -> dict[int, gc.Candidate]:
        found = gc.collect(
            config, database, stop=stopped.append, do_it=do_it,
            running_pids=lambda n: {1} if n == running.id else (), advance=looked_at.append,
        )  # fmt: skip
        return {c.ticket: c for c in found}

    (quiet_path / "big.ignored").write_bytes(b"x" * (3 << 20))
    log = config.ticket_paths(quiet.id).pane_log_path
    log.parent.mkdir(parents=True, exist_ok=True)
    log.write_bytes(b"y" * (2 << 20))
    first = collect(do_it=False)
    assert set(first) == {quiet.id, dirty.id}
    assert looked_at == [1, 1, 1, 1], "each, so that the bar ends at its end"
    assert 5 << 20 <= (first[quiet.id].size_bytes or 0) < 6 << 20
    assert quiet_path.exists()
    assert stopped == []
    second = collect(do_it=True)
    assert second[quiet.id].done
    assert second[quiet.id].size_bytes == first[quiet.id].size_bytes
    assert not log.exists()
    assert "new" in second[dirty.id].kept_because
    assert not quiet_path.exists()
    assert dirty_path.exists()
    assert stopped == [quiet.id]
    assert collect(do_it=False).keys() == {dirty.id}
    assert recent.id not in second


def test_somebody_who_writes_meanwhile_loses_nothing(
    config: Config, database: Database, repo: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Between the last look and the move: it is seen in what was moved, and moved back."""
    ticket, path = started(config, database, repo)
    (path / "a.ignored").write_text("1")
    pack = archive.pack

    def late(*args: object, **kwargs: object) -> archive.Packed:
        done = pack(*args, **kwargs)  # type: ignore[arg-type]
        (path / "a.ignored").write_text("2")
        return done

    monkeypatch.setattr(archive, "pack", late)
    with pytest.raises(Conflict, match="while it was being closed"):
        closed(config, database, ticket)
    assert (path / "a.ignored").read_text() == "2"
    assert git(path, "status", "--porcelain") == ""
    assert tickets.get(database, ticket.id).status == "open"


def test_a_close_that_was_cut_off_goes_on(
    config: Config, database: Database, repo: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Killed at any step: the next close finds the tree, wherever it is, and ends it."""
    for step in ("rename", "forget", "rmtree", "update"):
        ticket, path = started(config, database, repo)
        (path / "a.ignored").write_text("precious")
        with monkeypatch.context() as patch:

            def killed(*_: object, **__: object) -> None:
                raise KeyboardInterrupt

            where = {
                "rename": (close, "_check_moved"), "forget": (close.worktree, "forget"),
                "rmtree": (close.shutil, "rmtree"), "update": (close.tickets, "update"),
            }[step]  # fmt: skip
            patch.setattr(*where, killed)
            with pytest.raises(KeyboardInterrupt):
                closed(config, database, ticket)
        if step in {"rename", "forget"}:
            (path).rename(close.Tree(repo, path, "").aside)  # as a kill -9 would leave it
        closed(config, database, ticket)
        assert not path.exists()
        assert list(path.parent.iterdir()) == []
        reopen(config, database, ticket.id)
        assert (path / "a.ignored").read_text() == "precious", step
        closed(config, database, ticket)


@pytest.mark.parametrize("damage", ["cut", "flipped", "gone", "more"])
def test_a_damaged_archive_is_seen(tmp_path: Path, damage: str) -> None:
    """Cut short, changed, missing, or with something added: verify says so, unpack does nothing."""
    source = tmp_path / "file"
    source.write_bytes(os.urandom(300_000))
    path = archive.pack(tmp_path / "a.tar.zst", {"t": "ä"}, {"f": source}, {"ticket": 1}).path
    assert archive.verify(path)["ticket"] == 1
    data = bytearray(path.read_bytes())
    if damage == "cut":
        path.write_bytes(data[: len(data) // 2])
    elif damage == "flipped":
        data[len(data) // 2] ^= 1
        path.write_bytes(data)
    elif damage == "gone":
        path.write_bytes(b"")
    else:
        other = archive.pack(tmp_path / "b.tar.zst", {"u": "x"}, {}, {}).path
        path.write_bytes(bytes(data) + other.read_bytes())
        assert archive.verify(path)["members"].keys() == {
            "t",
            "f",
        }  # what follows the end is not read
        return
    with pytest.raises(TicketError):
        archive.unpack(path, lambda name: (tmp_path / "out", name))
    assert not (tmp_path / "out").exists()


def test_unpacking_writes_nowhere_else(tmp_path: Path) -> None:
    """Not through a link, not over anything, not above."""
    source = tmp_path / "file"
    source.write_text("new")
    files = {"worktree/../../up": source, "worktree/out/x": source, "worktree/there": source}
    path = archive.pack(tmp_path / "a.tar.zst", {}, files, {}).path
    target = tmp_path / "a/b"
    (tmp_path / "outside").mkdir()
    target.mkdir(parents=True)
    (target / "out").symlink_to(tmp_path / "outside")
    (target / "there").write_text("old")
    assert archive.unpack(path, lambda name: (target, name.removeprefix("worktree/"))) == []
    assert (target / "there").read_text() == "old"
    assert not (tmp_path / "up").exists()
    assert list((tmp_path / "outside").iterdir()) == []


def test_no_space_means_no_close(config: Config, database: Database, repo: Path) -> None:
    """The archive cannot be written: said, and all of it is as it was."""
    ticket, path = started(config, database, repo)
    full = replace(config, archive=replace(config.archive, folder="/proc/nowhere"))
    with pytest.raises((ConfigError, OSError)):
        closed(full, database, ticket)
    assert path.is_dir()
    assert tickets.get(database, ticket.id).status == "open"


def test_looking_runs_nothing_of_the_agents(
    config: Config, database: Database, repo: Path, tmp_path: Path
) -> None:
    """Hooks, fsmonitor and filters of a hostile configuration stay asleep through all of a close."""
    ticket, path = started(config, database, repo)
    traces = []
    for key in ("core.fsmonitor", "filter.evil.clean", "diff.external", "core.hooksPath"):
        program, trace = canary(tmp_path, key)
        traces.append(trace)
        git(repo, "config", key, str(program))
    (repo / ".git/info").mkdir(exist_ok=True)
    (repo / ".git/info/attributes").write_text("* filter=evil\n")
    os.utime(path / "README")
    closed(config, database, ticket)
    assert [t for t in traces if t.exists()] == []


def test_processes_are_seen_by_where_they_work(tmp_path: Path) -> None:
    """By their folder and by open files; not those of a folder with a longer name."""
    (tmp_path / "a").mkdir()
    (tmp_path / "ab").mkdir()
    with (tmp_path / "a/file").open("w") as file:
        one = subprocess.Popen(["sleep", "60"], stdout=file)
        two = subprocess.Popen(["sleep", "60"], cwd=tmp_path / "ab")
        three = subprocess.Popen(["sleep", "60"], cwd=tmp_path / "a")
    try:
        found = set(loss.processes_in(tmp_path / "a", [three.pid]))
        assert found == {f"{one.pid} sleep"}
    finally:
        for process in (one, two, three):
            process.kill()
            process.wait()


def test_two_closes_at_once_are_one(config: Config, database: Database, repo: Path) -> None:
    """One closes, the other is refused or finds it closed; nothing is half done."""
    ticket, path = started(config, database, repo)
    problems: list[BaseException] = []

    def one() -> None:
        try:
            closed(config, database, ticket)
        except TicketError as error:
            problems.append(error)
        except OSError as error:
            problems.append(error)

    threads = [threading.Thread(target=one) for _ in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(problems) <= 1, problems
    assert all(isinstance(p, TicketError) for p in problems), problems
    assert not path.exists()
    assert tickets.get(database, ticket.id).status == "closed"


def test_the_summary_knows_the_commits(config: Config, database: Database, repo: Path) -> None:
    """Number, time and subject of each since the base."""
    ticket, path = started(config, database, repo)
    (path / "x").write_text("x")
    head = commit(path, "did it")
    git(repo, "merge", "-q", "--no-ff", "-m", "merge", head)
    done = closed(config, database, ticket)
    shown = subprocess.run(
        ["tar", "--zstd", "-xOf", done.archive, "summary.json"], check=True, capture_output=True
    )
    (line,) = json.loads(shown.stdout)["commits"]
    assert line.startswith(head)
    assert line.endswith("did it")
    assert datetime.fromisoformat(line.split()[1]) <= datetime.now(UTC)
