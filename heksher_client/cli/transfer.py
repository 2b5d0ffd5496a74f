"""The commands `heksher-client export|import`: all settings of a service as a document, over HTTP."""

from typing import TYPE_CHECKING, Any, Final

import click

from heksher_client.cli.connection import connect, is_from_heksher, service_options
from heksher_client.cli.errors import CommandError
from heksher_client.cli.export_file import STDIO, ExportFile, parse_destination, report_export, write_document
from heksher_client.cli.import_plan import confirm_changes, import_parameters, print_changes
from heksher_client.cli.output import check_unattended, count, json_option, print_json, progress

if TYPE_CHECKING:
    from heksher_client.admin import AdminClient, ImportResult
    from heksher_client.exceptions import UnexpectedResponseError

_IMPORT_SECONDS: Final = 600.0
"""The longest time for an import, which is one request."""


@click.command("export", short_help="Export everything to a file.")
@click.argument("file", type=click.Path(dir_okay=False), default=STDIO, callback=parse_destination)
@service_options
def export_document(file: str, profile: str | None, url: str | None) -> None:
    """Export all context features, settings and rules of a service to FILE.

    The format is YAML if FILE ends in .yaml or .yml, and JSON otherwise. Without FILE, or with -, JSON is written to
    standard output.
    """
    with connect(profile, url) as client, progress("Exporting"):
        document = client.export()
    write_document(file, document)
    report_export(file, document)


@click.command("import", short_help="Import a file into a service.")
@import_parameters
@service_options
@json_option
def import_document(
    file: str, profile: str | None, url: str | None, *, exact: bool, dry_run: bool, yes: bool, as_json: bool
) -> None:
    """Import everything from FILE, which `export` has written, into a service.

    Requires a token with the role admin. All changes are made in one transaction, or none of them. If anything in the
    service has changed since the question for confirmation, nothing is imported. With - for FILE, JSON is read from
    standard input.

    Metadata, versions and periods that FILE leaves out stay as they are; --exact removes them, except the versions.
    """
    check_unattended(as_json=as_json, is_decided=yes or dry_run)
    source = ExportFile(file)
    document = source.content()
    with connect(profile, url, timeout=_IMPORT_SECONDS) as client:
        is_preview, revision = dry_run or not yes, None
        if is_preview:
            with progress("Comparing"):
                result = _import(client, source, document, exact=exact, dry_run=True)
            revision = result.revision
            if not as_json:
                _print_result(result, is_complete=dry_run, rest="--dry-run")
            if result.changes and not dry_run:
                confirm_changes(len(result.changes))
        if not dry_run and (yes or result.changes):
            with progress("Importing"):
                result = _import(client, source, document, exact=exact, revision=revision)
    if as_json:
        print_json(_result_fields(result))
        return
    if not is_preview:
        _print_result(result, is_complete=False, rest="`heksher-client changes`")
    if result.changes and not dry_run:
        click.echo(f"Made {count(len(result.changes), 'change')}.")


def _print_result(result: "ImportResult", *, is_complete: bool, rest: str) -> None:
    print_changes(result.changes, is_complete=is_complete, rest=rest)
    if not result.changes:
        click.echo("Nothing to do: the service matches the file.")


def _import(client: "AdminClient", source: ExportFile, document: Any, **options: Any) -> "ImportResult":
    """Send a document.

    Raises:
        CommandError: The document is invalid, or conflicts with the settings of the service: with the line. Or the
            service has changed, or does not support imports.
    """
    from heksher_client.exceptions import UnexpectedResponseError

    try:
        return client.import_document(document, **options)
    except UnexpectedResponseError as error:
        if error.status in (409, 422) and (problem := _document_problem(error)) is not None:
            raise source.error_at(problem[1], problem[0]) from None
        if error.status == 412:
            raise CommandError("the service has changed since the confirmation; nothing was imported") from None
        if error.status in (404, 405) and is_from_heksher(client, error):
            raise CommandError(
                f"{client.service_url} does not support imports over HTTP; a service of this package does: upgrade "
                "it, or use `heksher-client service import` with its database"
            ) from None
        raise


def _document_problem(error: "UnexpectedResponseError") -> tuple[str, tuple[str | int, ...]] | None:
    """Return the problem of a document, and the place in it; None if the response is not about the document."""
    try:
        body = error.json()
        return str(body["detail"]), tuple(body["path"])
    except (ValueError, LookupError, TypeError):
        return None


def _result_fields(result: "ImportResult") -> dict[str, Any]:
    changes = [{"action": each.action, "setting": each.setting, "text": each.text} for each in result.changes]
    return {"revision": result.revision, "changes": changes}
