"""`heksher-client login|logout|ping|profiles`: who may ask a service, and whether it answers."""

import sys
from typing import TYPE_CHECKING

import click

from heksher_client._logging import escaped
from heksher_client.cli.connection import asking, in_words, profile_names, with_service
from heksher_client.cli.output import as_json_option, print_json

if TYPE_CHECKING:
    from heksher_client.profiles._oauth_login import DeviceCode

_PROFILE = click.argument("profile", required=False, shell_complete=profile_names)


@click.command()
@_PROFILE
@click.option("--headless", is_flag=True, help="Show a code to enter on another machine, and open no browser here.")
@click.option("--token", is_flag=True, help="Read an access token from the standard input instead.")
def login(profile: str | None, *, headless: bool, token: bool) -> None:
    """Sign in to the server that gives tokens for a profile's service."""
    if headless and token:
        raise click.UsageError("--headless and --token are two ways of signing in: choose one")
    with in_words():
        from heksher_client.profiles import _oauth_login as sign_in

        if token:
            given = click.prompt("Token", hide_input=True) if sys.stdin.isatty() else sys.stdin.read().strip()
            if not given:
                raise click.UsageError("--token reads the token from the standard input, and there is none")
            place = sign_in.login_with_token(given, profile=profile)
        elif headless:
            place = sign_in.login_headless(_show_code, profile=profile)
        else:
            place = sign_in.login(_show_browser, profile=profile)
    click.echo(f"Signed in. The tokens are in {place}.")


def _show_code(code: "DeviceCode") -> None:
    click.echo(f"Go to {escaped(code.url)} and enter {escaped(code.code)} ({code.expires_in:.0f} seconds).")


def _show_browser(url: str) -> None:
    click.echo(f"Sign in with your browser: {url}")
    if click.launch(url):
        click.echo("No browser could be opened here: go there with any on this machine, or use --headless.", err=True)


@click.command()
@_PROFILE
def logout(profile: str | None) -> None:
    """Forget the tokens of a profile, here and at the server that gave them."""
    with in_words():
        from heksher_client.profiles import _oauth_login as sign_in

        was_signed_in = sign_in.logout(profile=profile)
    click.echo("Signed out." if was_signed_in else "Nobody was signed in.")


@click.command()
@with_service
@as_json_option
def ping(profile: str | None, url: str | None, *, as_json: bool) -> None:
    """Ask a service whether it is well."""
    with asking(profile, url) as operator:
        operator.ping()
    if as_json:
        print_json({"service": operator.service_url, "is_well": True})
    else:
        click.echo("The service is well.")


@click.command()
@as_json_option
def profiles(*, as_json: bool) -> None:
    """List the profiles of the configuration file."""
    with in_words():
        from heksher_client.profiles import _config as configuration

        path = configuration.config_path()
        names = configuration.profile_names(path)
    if as_json:
        print_json({"file": None if path is None else str(path), "profiles": names})
        return
    click.echo(f"In {path}:")
    for name in names or ["(none)"]:
        click.echo(f"  {name}")
