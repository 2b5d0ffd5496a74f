"""The commands `heksher-client login|logout|ping|profiles`: authentication, and a check of the connection."""

import json
import sys
from typing import TYPE_CHECKING

import click

from heksher_client._logging import escaped
from heksher_client.cli.arguments import share_option
from heksher_client.cli.completion import complete_profile
from heksher_client.cli.connection import connect, service_options
from heksher_client.cli.errors import report_errors
from heksher_client.cli.output import json_option, print_json

if TYPE_CHECKING:
    from heksher_client.profiles._login_flows import DeviceCode

_PROFILE = click.argument("profile", required=False, shell_complete=complete_profile, callback=share_option)


@click.command(short_help="Sign in, and store the tokens.")
@_PROFILE
@click.option("--headless", is_flag=True, help="Show a code to enter in a browser on another device.")
@click.option("--token", is_flag=True, help="Read an access token from standard input instead of using a browser.")
def login(profile: str | None, *, headless: bool, token: bool) -> None:
    """Sign in to the authorization server of a profile.

    The tokens are stored for later commands and programs.
    """
    if headless and token:
        raise click.UsageError("--headless and --token cannot be used together")
    with report_errors():
        from heksher_client.profiles import _oauth_login as oauth_login

        if token:
            text = click.prompt("Token", hide_input=True) if sys.stdin.isatty() else _read_token()
            location = oauth_login.login_with_token(text, profile=profile)
        elif headless:
            location = oauth_login.login_headless(_get_code, profile=profile)
        else:
            location = oauth_login.login(_open_browser, profile=profile)
    click.echo(f"Signed in. The tokens are stored in {location}.")


def _read_token() -> str:
    """Read a token from standard input, in any encoding of Unicode: Windows has several.

    Raises:
        click.UsageError: The input is empty, or another encoding.
    """
    with click.open_file("-", "rb") as stdin:
        content: bytes = stdin.read()
    try:
        text = content.decode(json.detect_encoding(content)).strip()
    except UnicodeDecodeError:
        raise click.UsageError("--token reads the token from standard input, which is not text in Unicode") from None
    if not text:
        raise click.UsageError("--token reads the token from standard input, which is empty")
    return text


def _get_code(code: "DeviceCode") -> str | None:
    if code.code:
        click.echo(f"Open {escaped(code.url)} and enter {escaped(code.code)} within {code.expires_in:.0f} seconds.")
        return None
    click.echo(f"Open {escaped(code.url)} in a browser and sign in within {code.expires_in:.0f} seconds.")
    click.echo("Enter the code that the browser shows then, or the address of the page, which need not load.")
    entered: str = click.prompt("Code or address")
    return entered


def _open_browser(url: str) -> None:
    click.echo(f"Sign in with your browser: {escaped(url)}")
    if click.launch(url):
        click.echo(
            "Could not open a browser: open the URL in any browser on this machine, or use --headless.", err=True
        )


@click.command(short_help="Revoke and delete the stored tokens.")
@_PROFILE
def logout(profile: str | None) -> None:
    """Revoke and delete the tokens of a profile."""
    with report_errors():
        from heksher_client.profiles import _oauth_login as oauth_login

        was_signed_in = oauth_login.logout(profile=profile)
    click.echo("Signed out." if was_signed_in else "Not signed in.")


@click.command(short_help="Check a service and the token.")
@service_options
@json_option
def ping(profile: str | None, url: str | None, *, as_json: bool) -> None:
    """Check that a service is healthy and accepts the token.

    The first request asks for its health, which needs no token. The second one reads the context features, which needs
    one if the service has access control. If there is a token, that is tried without it as well: a service without
    access control ignores any token. The role of the token is not checked.
    """
    with connect(profile, url) as client:
        client.ping()
        has_credentials = client.has_credentials
        requires_token = has_credentials and _requires_credentials(profile, url)
        client.context_features()
    if as_json:
        fields = {
            "service": client.service_url,
            "is_well": True,
            "is_authorized": True,
            "has_credentials": has_credentials,
            "requires_token": requires_token,
        }
        print_json(fields)
        return
    access = "requires no token"
    if has_credentials:
        unchecked = "requires no token; yours was not checked"
        access = "accepts the token or password (its role was not checked)" if requires_token else unchecked
    click.echo(f"{client.service_url} is healthy, and {access}.")


def _requires_credentials(profile: str | None, url: str | None) -> bool:
    """True if a service refuses a request without credentials, or if they cannot be left out."""
    from heksher_client.exceptions import UnexpectedResponseError

    with connect(profile, url, is_anonymous=True) as client:
        if client.has_authorization_header:
            return True
        try:
            client.context_features()
        except UnexpectedResponseError as error:
            if error.status not in (401, 403):
                raise
            return True
    return False


@click.command(short_help="List the profiles.")
@json_option
def profiles(*, as_json: bool) -> None:
    """List the profiles of the configuration file."""
    with report_errors():
        from heksher_client.profiles import _config as config

        path = config.config_path()
        names = config.profile_names(path)
    if as_json:
        print_json({"file": None if path is None else str(path), "profiles": names})
        return
    click.echo(f"Profiles in {path}:")
    for name in names or ["(none)"]:
        click.echo(f"  {escaped(name)}")
