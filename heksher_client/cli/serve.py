"""The command `heksher-client serve`: run the service."""

import errno
import logging
from collections.abc import Callable
from typing import TYPE_CHECKING, TypeVar

import click

from heksher_client._version import __version__
from heksher_client.cli.arguments import Seconds, require_text
from heksher_client.cli.database import database_option, report_database_errors

if TYPE_CHECKING:
    from heksher_client.service.database import Database

T = TypeVar("T")


@click.command(short_help="Run the service.")
@database_option
@click.option("--host", default="127.0.0.1", show_default=True, callback=require_text, help="Address to listen on.")
@click.option(
    "--port", type=click.IntRange(0, 65_535), default=9999, show_default=True, help="Port; 0 selects a free one."
)
@click.option("--feature", "features", metavar="NAME", multiple=True, help="Context feature to add; may be repeated.")
@click.option(
    "--access-control/--no-access-control",
    default=None,
    help="Require a token for each request. Default: required unless --host is a loopback address.",
)
@click.option("--root-path", metavar="PATH", default="", help="Path prefix of the service behind a proxy.")
@click.option(
    "--preview-above",
    metavar="N",
    type=click.IntRange(0),
    default=10,
    envvar="HEKSHER_PREVIEW_ABOVE",
    show_default=True,
    show_envvar=True,
    help="Rules that the console changes at once without a preview.",
)
@click.option("--certificate", type=click.Path(exists=True), help="File with the TLS certificate, in PEM.")
@click.option("--key", type=click.Path(exists=True), help="File with the private key of the certificate, in PEM.")
@click.option("--access-log/--no-access-log", default=True, help="Log each request.")
@click.option(
    "--drain",
    type=Seconds(0, 600),
    default=0.0,
    show_default=True,
    help="Seconds to keep serving after a signal to stop, so that load balancers notice.",
)
def serve(
    database: str,
    host: str,
    port: int,
    features: tuple[str, ...],
    *,
    access_control: bool | None,
    root_path: str,
    preview_above: int,
    access_log: bool,
    drain: float,
    **tls: str | None,
) -> None:
    """Serve settings and rules from a database.

    The database is created if it does not exist. Context features are added after those that it has, in the given
    order. Ctrl-C and SIGTERM stop the service gracefully.
    """
    certificate, key = tls["certificate"], tls["key"]
    if (certificate is None) != (key is None):
        raise click.UsageError("--certificate and --key must be used together")
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(levelname)s %(name)s: %(message)s")
    with report_database_errors():
        from heksher_client.service import create_app, database_url
        from heksher_client.service.addresses import check_root_path
        from heksher_client.service.metrics import access_log as access_logger
        from heksher_client.service.server import Server, listen, resolve_access_control, service_url

        access_logger.disabled = not access_log
        is_controlled = resolve_access_control(host, access_control)
        app = create_app(
            database_url(database),
            features,
            access_control=is_controlled,
            root_path=root_path,
            preview_above=preview_above,
        )
        options = {} if certificate is None else {"ssl_certfile": certificate, "ssl_keyfile": key}
        server = Server(app, drain=drain, stop_within=10, **options)
        try:
            server.config.load()  # reads the certificate
            listener = _listen(listen, host, port)
        except BaseException:
            app.state.database.close()
            raise
    url = service_url(host, listener.getsockname()[1], "http" if certificate is None else "https")
    url += check_root_path(root_path)
    location = _redact_password(database)
    click.echo(f"Heksher service {__version__} on {location}: {url} (console: {url}/console, API: {url}/docs)")
    _warn_about_access(app.state.database, host, is_controlled=is_controlled, is_encrypted=certificate is not None)
    server.serve_on(listener)


def _listen(listen: Callable[[str, int], T], host: str, port: int) -> T:
    """Return a listening socket.

    Raises:
        click.ClickException: Another program uses the port.
        OSError: As by `listen`.
    """
    try:
        return listen(host, port)
    except OSError as error:
        if error.errno != errno.EADDRINUSE:
            raise
        raise click.ClickException(
            f"port {port} of {host} is in use: stop the other program, or choose another port with --port "
            "(0 selects a free one)"
        ) from None


def _warn_about_access(database: "Database", host: str, *, is_controlled: bool | None, is_encrypted: bool) -> None:
    """Print a warning if nobody can use the service, or anyone may do so who can reach the address."""
    from heksher_client.service.access import is_loopback
    from heksher_client.service.tokens import list_tokens

    if is_controlled:
        with database.begin(writes=False) as connection:
            has_tokens = bool(list_tokens(connection))
        if not has_tokens:
            _warn("requests require a token, and none exists: create one with `heksher-client service token add NAME`")
        if not is_encrypted and not is_loopback(host):
            _warn("tokens are sent unencrypted: use a proxy with TLS, or --certificate and --key")
    elif not is_loopback(host):
        _warn("requests do not require a token: anyone who can reach this address can change all settings")


def _warn(text: str) -> None:
    click.echo(f"Warning: {text}.", err=True)


def _redact_password(database: str) -> str:
    """Return the database. If it is a URL, it has no password, and only those options that identify the database."""
    from sqlalchemy import make_url

    if "://" not in database:
        return database
    url = make_url(database)
    options = {name: value for name, value in url.query.items() if name in ("host", "port", "dbname", "user")}
    return url.set(query=options).render_as_string(hide_password=True)
