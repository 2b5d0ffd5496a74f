"""`heksher-client service ...`: what is done to the database of a service, while the service runs or not."""

import json
from datetime import timedelta

import click

from heksher_client.cli.database import existing, in_words, opened, with_database
from heksher_client.cli.documents import STANDARD, read, write


@click.group()
def service() -> None:
    """Look after the database of a service."""


@service.command()
@with_database
def upgrade(database: str) -> None:
    """Bring the database up to this version of the service.

    Stop all services that use it first, and keep a copy of it. It is done as a whole, or not at all.
    """
    with in_words():
        from heksher_client.service import database_url
        from heksher_client.service.migrations import upgrade as run
        from heksher_client.service.schema import VERSION

        former = run(database_url(existing(database)))
    if former == VERSION:
        click.echo(f"Nothing to do: the database has the tables of version {VERSION}.")
    else:
        click.echo(f"The database has the tables of version {VERSION} now; before {former or 'it had none'}.")


@service.command("export")
@click.argument("file", type=click.Path(dir_okay=False))
@with_database
def export_all(database: str, file: str) -> None:
    """Write all context features, settings and rules to FILE, as JSON or YAML by its name; - for JSON on the screen."""
    with in_words():
        from heksher_client.service import import_export as portable

        with opened(existing(database)) as connection:
            document = portable.export(connection)
        write(file, document)
    if file != STANDARD:
        rules = sum(len(setting["rules"]) for setting in document["settings"])
        features = len(document["context_features"])
        click.echo(
            f"{features} context features, {len(document['settings'])} settings and {rules} rules are in {file}."
        )


@service.command("import")
@click.argument("file", type=click.Path(dir_okay=False))
@click.option("--exact", is_flag=True, help="Delete what is not in the file.")
@click.option("--dry-run", is_flag=True, help="Only say what would be changed.")
@click.option("--yes", is_flag=True, help="Do not ask.")
@with_database
def import_all(database: str, file: str, *, exact: bool, dry_run: bool, yes: bool) -> None:
    """Have the database hold what is in FILE, which `export` has written. It is done as a whole, or not at all."""
    with in_words():
        from heksher_client.service import import_export as portable

        document = read(file)
        with opened(database) as connection:
            planned = [step.text for step in portable.plan(connection, document, exact=exact)]
        for text in planned:
            click.echo(text)
        if not planned:
            click.echo("Nothing to do: the database has all that is in the file.")
        if dry_run or not planned:
            return
        if not yes:
            click.confirm(f"Make these {len(planned)} changes?", abort=True)
        with opened(database) as connection:
            steps = portable.plan(connection, document, exact=exact)
            if [step.text for step in steps] != planned:
                raise click.ClickException("the database was changed meanwhile, so nothing was done; try again")
            for step in steps:
                step.apply(connection)
    click.echo(f"{len(planned)} changes were made.")


@service.command()
@click.argument("file", type=click.Path(dir_okay=False))
@click.option("--after", type=click.IntRange(0), default=0, show_default=True, help="Only changes after this revision.")
@with_database
def changes(database: str, file: str, after: int) -> None:
    """Write the log of changes to FILE, one a line, in JSON; - for the screen."""
    with in_words():
        from dataclasses import asdict

        from heksher_client.service.changes import changes as find

        with opened(existing(database)) as connection, click.open_file(file, "w", encoding="utf-8") as out:
            number = 0
            while found := find(connection, after=after, most=1_000):
                for change in found:
                    out.write(json.dumps(asdict(change), default=str, ensure_ascii=False) + "\n")
                after, number = found[-1].revision, number + len(found)
    if file != STANDARD:
        click.echo(f"{number} changes are in {file}.")


@service.group()
def token() -> None:
    """Say who may use the service. A token that is revoked is refused within a second."""


@token.command()
@click.argument("name")
@click.option(
    "--role",
    type=click.Choice(["read", "admin"]),
    default="read",
    show_default=True,
    help="read: for programs, which read everything and declare settings. admin: may change everything.",
)
@click.option("--days", type=click.IntRange(1, 36_500), help="How long it is valid; for ever unless given.")
@with_database
def add(database: str, name: str, role: str, days: int | None) -> None:
    """Make a token for NAME, and print it: it is to be had only now."""
    with in_words():
        from heksher_client.service import tokens

        lifetime = None if days is None else timedelta(days=days)
        with opened(database) as connection:
            text = tokens.add_token(connection, name, tokens.Role(role), lifetime=lifetime)
    click.echo(text)


@token.command("list")
@with_database
def list_tokens(database: str) -> None:
    """List the tokens: their names, roles, when they were made and when they expire."""
    with in_words():
        from heksher_client.service import tokens

        with opened(existing(database)) as connection:
            found = tokens.tokens(connection)
    for held in found:
        end = "" if held.expires_at is None else f"  expires {held.expires_at:%Y-%m-%d %H:%M}"
        expired = "  (expired)" if held.is_expired else ""
        click.echo(f"{held.name:<30} {held.role:<6} {held.created_at:%Y-%m-%d %H:%M}{end}{expired}")


@token.command()
@click.argument("name")
@with_database
def revoke(database: str, name: str) -> None:
    """Have the token of NAME refused from now on."""
    with in_words():
        from heksher_client.service import tokens

        with opened(existing(database)) as connection:
            tokens.revoke_token(connection, name)
    click.echo(f"The token {name} is revoked.")
