"""`heksher-client service ...`: what is done to the database of a service, while the service runs or not."""

from datetime import timedelta

import click

from heksher_client.cli.database import existing, in_words, opened, with_database


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
