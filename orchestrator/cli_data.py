"""ticketctl, the database's part: backup, restore.

An entry point's commands, like cli.py's, which registers them.
"""

from __future__ import annotations

from pathlib import Path

import click

from orchestrator import config as configuration
from orchestrator.cli_common import print_json, print_table, reports_errors
from orchestrator.config import Config
from orchestrator.errors import Conflict, InvalidInput, TicketError

LATEST = "latest"


def _embedded() -> Config:
    config = configuration.load()
    if config.database.url:
        raise Conflict(
            "The database is a server of your own; this backs up the embedded one.",
            hint="pg_dump --format=custom is what it would run.",
        )
    return config


@click.command()
@click.option("--json", "as_json", is_flag=True, help="One object.")
@reports_errors
def backup(as_json: bool) -> None:
    """Back the database up now. mc-backup.timer does it each night, and keeps seven.

    Logs, archives and worktrees are files already and are not in it.
    """
    from orchestrator import backup as backups
    from orchestrator import doctor_services, postgres, progress

    config = _embedded()
    doctor_services.leave_copy(config)
    label = "dumping the database, and reading the dump again"
    with progress.shown(label, quiet=as_json) as meter:
        made, removed = backups.make(config, postgres.embedded(config), meter=meter)
    if as_json:
        print_json(
            {"path": str(made.path), "made_at": made.made_at, "size_bytes": made.size_bytes,
             "removed": [str(p) for p in removed]}
        )  # fmt: skip
        return
    click.echo(f"{made.path}: {made.size_bytes} bytes, read again and whole")
    for path in removed:
        click.echo(f"removed {path}, which was past [backup] keep")


@click.command()
@click.argument("source", metavar="[FILE|latest|DATABASE]", required=False)
@click.option("--new-cluster", is_flag=True, help="Into a new cluster of the newest PostgreSQL.")
@click.option("--force", is_flag=True, help="Although tickets run.")
@click.option("--json", "as_json", is_flag=True, help="An array, or one object.")
@reports_errors
def restore(source: str | None, new_cluster: bool, force: bool, as_json: bool) -> None:
    """Put a backup back; without one, list what there is.

    The database of before is kept under another name, and `ticketctl restore NAME` changes back to
    it. With --new-cluster the old cluster is put aside instead, and without a FILE it is dumped
    first: that is how to move to another major release of PostgreSQL.
    """
    config = _embedded()
    if source is None and not new_cluster:
        _list(config, as_json=as_json)
        return

    from orchestrator import postgres, progress
    from orchestrator import restore as restoring
    from orchestrator.systemd import UserManager

    with (
        restoring.alone(config),
        UserManager() as manager,
        progress.shown("restoring", quiet=as_json) as meter,
    ):
        running = restoring.workers(manager)
        if running and not force:
            numbers = ", ".join(str(n) for n in sorted(running))
            raise Conflict(
                f"Tickets run, and what they did since the backup would be forgotten: {numbers}.",
                hint="Stop them first (ticketctl stop TICKET), or --force.",
            )
        if new_cluster:
            file = _file(config, source) if source else None
            path, done = restoring.move(config, manager, file, running=running, meter=meter)
        else:
            assert source is not None  # noqa: S101  # for mypy: listed above
            manager.start(restoring.UNIT)
            server = postgres.embedded(config)
            if restoring.KEPT.fullmatch(source):
                path = Path(source)
                done = restoring.Restored(kept=restoring.swap(server, source), unconfirmed=0)
            else:
                path = _file(config, source)
                done = restoring.into_database(server, path, running=running, meter=meter)
        restoring.restart_services(manager)
    if as_json:
        print_json(
            {"restored": str(path), "kept": done.kept, "unconfirmed": done.unconfirmed,
             "migrations": list(done.migrations)}
        )  # fmt: skip
        return
    click.echo(f"restored {path}")
    if done.migrations:
        click.echo(f"brought up to date: {', '.join(done.migrations)}")
    if done.unconfirmed:
        click.echo(
            f"{done.unconfirmed} messages were waiting then: unconfirmed now, not sent again"
        )
    click.echo("browsers log in again: ticketctl open")
    if done.kept.startswith("/"):
        click.echo(f"the cluster of before is {done.kept}; remove it when you have looked")
    elif done.kept:
        click.echo(
            f"the database of before is {done.kept}; back to it: ticketctl restore {done.kept}"
        )


def _list(config: Config, *, as_json: bool) -> None:
    from orchestrator import backup as backups
    from orchestrator import postgres
    from orchestrator import restore as restoring

    found = backups.listed(config.backup_dir)
    try:
        aside = restoring.kept(postgres.embedded(config))
    except (TicketError, OSError):  # it does not run: then the files are what matters
        aside = {}
    if as_json:
        files = [
            {"path": str(b.path), "made_at": b.made_at, "size_bytes": b.size_bytes} for b in found
        ]
        print_json([*files, *({"database": n, "size_bytes": s} for n, s in aside.items())])
        return
    rows = [
        [b.made_at.isoformat(timespec="seconds"), str(b.size_bytes), str(b.path)] for b in found
    ]
    rows += [["put aside by a restore", str(size), name] for name, size in aside.items()]
    if not rows:
        click.echo(f"No backups in {config.backup_dir} yet. Make one: ticketctl backup", err=True)
        return
    print_table(["MADE", "BYTES", "WHAT"], rows)


def _file(config: Config, source: str) -> Path:
    from orchestrator import backup as backups

    if source == LATEST:
        found = backups.listed(config.backup_dir)
        if not found:
            raise InvalidInput(f"There is no backup in {config.backup_dir}.")
        return found[-1].path
    given = Path(source).expanduser().absolute()
    for path in (given, config.backup_dir / Path(source).name):
        if path.is_file():
            return path
    raise InvalidInput(f"There is no file {given}.", hint="What there is: ticketctl restore")


COMMANDS: tuple[click.Command, ...] = (backup, restore)
