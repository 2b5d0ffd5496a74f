"""The command `heksher-client diff`: compare two services, profiles or exported files."""

import re
from collections.abc import Callable

import click
from click.shell_completion import CompletionItem

from heksher_client.admin import ServiceState
from heksher_client.cli.arguments import require_text
from heksher_client.cli.comparison import compare, print_differences
from heksher_client.cli.completion import complete_profile, profile_names
from heksher_client.cli.connection import connect, verbose_option
from heksher_client.cli.errors import ExitStatus, report_errors
from heksher_client.cli.export_file import is_export_file, read_state
from heksher_client.cli.output import json_option, print_json, progress


def _complete_source(context: click.Context, parameter: click.Parameter, incomplete: str) -> list[CompletionItem]:
    names = [CompletionItem(name) for name in complete_profile(context, parameter, incomplete)]
    return [*names, CompletionItem(incomplete, type="file")]


@click.command(short_help="Compare two services or files.")
@click.argument("before", callback=require_text, shell_complete=_complete_source)
@click.argument("after", callback=require_text, shell_complete=_complete_source)
@verbose_option
@json_option
def diff(before: str, after: str, *, as_json: bool) -> None:
    """Show the differences between BEFORE and AFTER.

    Each is a profile, a URL, or a file that `import` accepts: written by `export`, or by hand. Exits with status 5 if
    they differ. To compare two contexts of one service, such as environment=staging and environment=prod, use
    `compare`.
    """
    with progress("Fetching rules") as on_progress:
        first, second = _load_state(before, "BEFORE", on_progress), _load_state(after, "AFTER", on_progress)
    differences = list(compare(first, second))
    if as_json:
        print_json([difference._asdict() for difference in differences])
    else:
        print_differences(differences)
    if differences:
        click.get_current_context().exit(ExitStatus.DIFFERENT)


def _load_state(source: str, argument: str, on_progress: Callable[[int, int], object]) -> ServiceState:
    is_url = re.match("https?:|https?//|[^/]*:[0-9]", source) is not None or "://" in source
    if not is_url and is_export_file(source):
        with report_errors():
            return read_state(source)
    if not is_url and "=" in source and source not in profile_names():
        raise click.UsageError(
            f"{source!r} is neither a profile nor a file; to compare two contexts of one service, use "
            "`heksher-client compare`"
        )
    with connect(None, source, url_name=argument) if is_url else connect(source, None) as client:
        return client.service_state(on_progress)
