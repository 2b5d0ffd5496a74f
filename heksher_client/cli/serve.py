"""`heksher-client serve`: the service as a program of its own."""

import logging

import click

from heksher_client._version import __version__
from heksher_client.cli.connection import Seconds
from heksher_client.cli.database import in_words, with_database


@click.command()
@with_database
@click.option("--host", default="127.0.0.1", show_default=True, help="The address to listen on.")
@click.option("--port", type=click.IntRange(0, 65_535), default=9999, show_default=True, help="0 for any that is free.")
@click.option("--feature", "features", metavar="NAME", multiple=True, help="A context feature; repeat it for more.")
@click.option(
    "--access-control/--no-access-control",
    default=None,
    help="Whether requests need a token. Unless given, they do on any other address than loopback.",
)
@click.option("--certificate", type=click.Path(exists=True), help="Of the TLS certificate: a file, in PEM.")
@click.option("--key", type=click.Path(exists=True), help="Of its private key: a file, in PEM.")
@click.option("--access-log/--no-access-log", default=True, help="Whether to log each request.")
@click.option(
    "--drain",
    type=Seconds(0, 600),
    default=0.0,
    show_default=True,
    help="Seconds for which requests are still answered when it is to stop, so that balancers notice.",
)
def serve(
    database: str,
    host: str,
    port: int,
    features: tuple[str, ...],
    *,
    access_control: bool | None,
    certificate: str | None,
    key: str | None,
    access_log: bool,
    drain: float,
) -> None:
    """Serve settings and rules from a database, which is made where there is none.

    Context features are added to those that the database has, in the order given. Ends in order with Ctrl-C or SIGTERM.
    """
    if (certificate is None) != (key is None):
        raise click.UsageError("a certificate needs its key, and a key its certificate")
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(levelname)s %(name)s: %(message)s")
    with in_words():
        from heksher_client.service import create_app, database_url
        from heksher_client.service.access import is_loopback
        from heksher_client.service.metrics import access_log as log_of_requests
        from heksher_client.service.server import Server, access_control_at, listen, url_of
        from heksher_client.service.tokens import tokens

        log_of_requests.disabled = not access_log
        is_controlled = access_control_at(host, access_control)
        app = create_app(database_url(database), features, access_control=is_controlled)
        options = {} if certificate is None else {"ssl_certfile": certificate, "ssl_keyfile": key}
        server = Server(app, drain=drain, stop_within=10, log_config=None, **options)
        try:
            server.config.load()  # and with it the certificate
            listener = listen(host, port)
        except BaseException:
            app.state.database.close()
            raise
    url = url_of(host, listener.getsockname()[1], "http" if certificate is None else "https")
    click.echo(f"Heksher service {__version__} on {_shown(database)}: {url} (console: {url}/console, API: {url}/docs)")
    if is_controlled:
        with app.state.database.begin(writes=False) as connection:
            has_tokens = bool(tokens(connection))
        if not has_tokens:
            _warn("requests need a token, and there is none yet: heksher-client service token add NAME")
        if certificate is None and not is_loopback(host):
            _warn("tokens are sent in the clear: put TLS in front of it, or give --certificate and --key")
    elif not is_loopback(host):
        _warn("requests need no token: whoever reaches this address may change all settings")
    server.serve_on(listener)


def _warn(text: str) -> None:
    click.echo(f"Note: {text}.", err=True)


def _shown(database: str) -> str:
    """The database without a password that its URL may have."""
    from sqlalchemy import make_url

    return make_url(database).render_as_string(hide_password=True) if "://" in database else database
