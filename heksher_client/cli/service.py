"""The command `heksher-client service`: manage the database of a service, whether the service runs or not."""

from datetime import timedelta

import click

from heksher_client._logging import escaped, visible_json
from heksher_client.cli.arguments import new_token_options
from heksher_client.cli.command_groups import SuggestingGroup
from heksher_client.cli.database import (
    database_option,
    open_database,
    read_database,
    report_database_errors,
    require_database,
)
from heksher_client.cli.export_file import STDIO, ExportFile, parse_destination, report_export, write_document
from heksher_client.cli.import_plan import confirm_changes, import_parameters, print_changes
from heksher_client.cli.output import count, progress


@click.group(cls=SuggestingGroup, short_help="Manage the database of a service.")
def service() -> None:
    """Manage the database of a service."""


@service.command(short_help="Upgrade the database to this version.")
@database_option
def upgrade(database: str) -> None:
    """Upgrade the database to this version of the service.

    Stop all services that use the database, and back it up first. The upgrade is one transaction.
    """
    with report_database_errors():
        from heksher_client.service.migrations import upgrade as run
        from heksher_client.service.schema import VERSION

        former = run(require_database(database))
    if former == VERSION:
        click.echo(f"The database is up to date: its schema has version {VERSION}.")
    else:
        click.echo(f"Upgraded the schema of the database from version {former or '(none)'} to {VERSION}.")


@service.command("export", short_help="Export the database to a file.")
@click.argument("file", type=click.Path(dir_okay=False), callback=parse_destination)
@database_option
def export_all(database: str, file: str) -> None:
    """Export all context features, settings and rules to FILE.

    The format is YAML if FILE ends in .yaml or .yml, and JSON otherwise. With - for FILE, JSON is written to standard
    output.
    """
    with report_database_errors():
        from heksher_client.service import import_export

        with read_database(database) as connection:
            document = import_export.export(connection)
        write_document(file, document)
    report_export(file, document)


@service.command("import", short_help="Import a file into the database.")
@import_parameters
@database_option
def import_all(database: str, file: str, *, exact: bool, dry_run: bool, yes: bool) -> None:
    """Import everything from FILE, which `export` has written.

    All changes are made in one transaction.

    Metadata, versions and periods that FILE leaves out stay as they are; --exact removes them, except the versions.
    """
    with report_database_errors():
        from heksher_client.service import import_export
        from heksher_client.service.history import read_state

        source = ExportFile(file)
        document = source.document()
        with source.report_errors(), read_database(database, is_optional=True) as connection:
            revision = read_state(connection).revision
            planned = import_export.plan(connection, document, exact=exact)
        print_changes(planned, is_complete=dry_run)
        if not planned:
            click.echo("Nothing to do: the database matches the file.")
        if dry_run or not planned:
            return
        if not yes:
            confirm_changes(len(planned))
        with source.report_errors(), open_database(database) as connection:
            steps = import_export.plan(connection, document, exact=exact)
            # Texts are shortened, and do not show all that a step replaces. Without a confirmation, they suffice.
            has_changed = not yes and read_state(connection).revision != revision
            if has_changed or [step.text for step in steps] != [step.text for step in planned]:
                raise click.ClickException("the database has changed since the confirmation; nothing was imported")
            with progress("Importing") as on_progress:
                import_export.apply(connection, steps, on_progress)
    click.echo(f"Made {count(len(planned), 'change')}.")


@service.command(short_help="Write the change log to a file.")
@click.argument("file", type=click.Path(dir_okay=False), callback=parse_destination)
@click.option(
    "--after", type=click.IntRange(0, 2**63 - 1), default=0, show_default=True, help="Only changes after this revision."
)
@database_option
def changes(database: str, file: str, after: int) -> None:
    """Write the change log to FILE, as one JSON object per line.

    With - for FILE, it is written to standard output.
    """
    with report_database_errors():
        from dataclasses import asdict

        from heksher_client.service.changes import changes as list_changes

        count = 0
        with (
            read_database(database) as connection,
            click.open_file(file, "w", encoding="utf-8") as out,
        ):
            while page := list_changes(connection, after=after, limit=1_000):
                for change in page:
                    out.write(visible_json(asdict(change), default=str) + "\n")
                after, count = page[-1].revision, count + len(page)
    if file != STDIO:
        click.echo(f"Wrote {count} changes to {file}.")


@service.group(cls=SuggestingGroup, short_help="Manage access tokens.")
def token() -> None:
    """Manage access tokens."""


@token.command(short_help="Create a token, and print it.")
@click.argument("name")
@new_token_options
@database_option
def add(database: str, name: str, role: str, days: int | None) -> None:
    """Create a token with the given NAME, and print it.

    The token cannot be shown again.
    """
    with report_database_errors():
        from heksher_client.service import tokens

        lifetime = None if days is None else timedelta(days=days)
        with open_database(database) as connection:
            text = tokens.add_token(connection, name, tokens.Role(role), lifetime=lifetime)
    click.echo(text)


@token.command("list", short_help="List the tokens.")
@database_option
def list_tokens(database: str) -> None:
    """List the names and roles of all tokens, and when they were created and expire."""
    with report_database_errors():
        from heksher_client.service import tokens

        with read_database(database) as connection:
            all_tokens = tokens.list_tokens(connection)
    for each in all_tokens:
        expiry = "" if each.expires_at is None else f"  expires {each.expires_at:%Y-%m-%d %H:%M}"
        expired = "  (expired)" if each.is_expired else ""
        click.echo(f"{escaped(each.name):<30} {each.role:<7} {each.created_at:%Y-%m-%d %H:%M}{expiry}{expired}")


@token.command(short_help="Revoke a token.")
@click.argument("name")
@database_option
def revoke(database: str, name: str) -> None:
    """Revoke the token with the given NAME. Services refuse it within a second."""
    with report_database_errors():
        from heksher_client.service import tokens

        require_database(database)
        with open_database(database) as connection:
            tokens.revoke_token(connection, name)
    click.echo(f"Revoked token {escaped(name)}.")
