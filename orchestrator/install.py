"""What `ticketctl setup` does: folders, units, database, linger, services, in this order.

Everything that needs no root; install.sh, or pipx, brings the system's packages and this program
first. Each step looks whether it is done already, so that a second run changes nothing and says so.
"""

from __future__ import annotations

from collections.abc import Mapping

import click

from orchestrator import config as configuration
from orchestrator import doctor, install_program, postgres, systemd
from orchestrator import install_files as files
from orchestrator import install_services as services
from orchestrator.errors import ConfigError
from orchestrator.install_report import Report
from orchestrator.store import logins
from orchestrator.store.db import Database


def install(
    *, manuals: Mapping[str, str], listen: str | None = None, dry_run: bool = False
) -> None:
    """Brings everything up to date and prints a login link.

    Args:
        manuals: the man pages, by file name.
        listen: another address of the gateway.
        dry_run: only say what would be done.
    """
    report = Report(dry_run=dry_run)
    install_program.ensure_possible(report, configuration.load())
    config = files.ensure_settings(report, listen)
    files.ensure_folders(report, config)
    install_program.ensure_program(report, config)
    units_changed = files.ensure_units(report, config)
    files.ensure_manuals(report, manuals)
    if not config.database.url and (not dry_run or postgres.installed_releases()):
        services.ensure_cluster(report, config)
    services.ensure_linger(report)
    if dry_run:
        click.echo(f"Nothing was done; {report.changed} steps would be.")
        return
    with systemd.UserManager() as manager:
        if units_changed:
            manager.reload()
        if manager.unit("mc.target").unit_file != "enabled":
            report.step("mc.target starts at boot", lambda: manager.enable(["mc.target"]))
        services.ensure_running(report, config, manager)
        if config.database.url:
            services.retire_embedded(report, config, manager)
    services.wait_for_gateway(config)
    click.echo(
        "Nothing had to be changed." if not report.changed else f"{report.changed} steps done."
    )
    click.echo()
    checks = doctor.examine(config)
    for check in checks:
        if check.verdict != "ok":
            click.echo(f"{check.verdict:>4}  {check.name}: {check.found}\n      {check.mend}")
    bad = [c for c in checks if c.verdict == "bad"]
    if bad:
        raise ConfigError(f"{len(bad)} checks failed.", hint="ticketctl doctor")
    click.echo(f"doctor: {len(checks)} checks, nothing missing that everything needs.")
    link = logins.create_link(Database(config.database_dsn), valid_s=logins.INSTALL_LINK_S)
    click.echo(
        f"\nOpen in a browser, within {logins.INSTALL_LINK_S // 60} minutes (later: ticketctl open):"
    )
    click.echo(f"  {config.gateway_url}/login?code={link}")
