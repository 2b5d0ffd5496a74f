"""The command `heksher-client tokens`: list, create and revoke the access tokens of a service."""

from dataclasses import asdict
from datetime import timedelta

import click

from heksher_client._logging import escaped
from heksher_client.cli.arguments import new_token_options, require_text
from heksher_client.cli.command_groups import DefaultCommandGroup
from heksher_client.cli.connection import connect, group_options, service_options
from heksher_client.cli.errors import CommandError, suggestion
from heksher_client.cli.output import json_option, local_time, print_json, print_table


@click.group(
    cls=DefaultCommandGroup,
    short_help="List, create and revoke access tokens.",
    subcommand_metavar="[COMMAND] [ARGS]...",
)
@group_options
def tokens() -> None:
    """List, create and revoke the access tokens of a service.

    Without a command, they are listed. All of it requires a token with the role admin. The first one is created with
    `heksher-client service token add` and the database.
    """


@tokens.command("list", short_help="List the tokens.")
@service_options
@json_option
def list_tokens(profile: str | None, url: str | None, *, as_json: bool) -> None:
    """List the names and roles of all tokens, and when they were created and expire."""
    with connect(profile, url) as client:
        found = client.tokens()
    if as_json:
        print_json([asdict(token) for token in found])
        return
    rows = []
    for token in found:
        expiry = "never" if token.expires_at is None else local_time(token.expires_at)
        rows.append(
            (token.name, token.role, local_time(token.created_at), expiry + (" (expired)" if token.expired else ""))
        )
    print_table(("name", "role", "created", "expires"), rows, "No tokens.")


_NAME = click.argument("name", callback=require_text)


@tokens.command(short_help="Create a token, and print it.")
@_NAME
@new_token_options
@service_options
@json_option
def add(name: str, role: str, days: int | None, profile: str | None, url: str | None, *, as_json: bool) -> None:
    """Create a token with the given NAME, and print it.

    The token cannot be shown again.
    """
    with connect(profile, url) as client:
        text = client.create_token(name, role, lifetime=None if days is None else timedelta(days=days))
    if as_json:
        print_json({"name": name, "role": role, "token": text})
    else:
        click.echo(text)


@tokens.command(short_help="Revoke a token.")
@_NAME
@service_options
@json_option
def revoke(name: str, profile: str | None, url: str | None, *, as_json: bool) -> None:
    """Revoke the token with the given NAME. The service refuses it within a second."""
    with connect(profile, url) as client:
        names = [token.name for token in client.tokens()]
        if name not in names:
            raise CommandError(f"token {name} does not exist{suggestion(name, names)}")
        client.revoke_token(name)
    if as_json:
        print_json({"name": name})
    else:
        click.echo(f"Revoked token {escaped(name)}.")
