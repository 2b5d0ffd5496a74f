"""Shell completion: the `completion` command, and the completion of profiles and settings.

A shell cannot display errors, so completions that fail are empty.
"""

import os
from contextlib import closing
from typing import Any, Final

import click
from click.shell_completion import (
    BashComplete,
    CompletionItem,
    add_completion_class,
    get_completion_class,
    split_arg_string,
)

from heksher_client.cli.arguments import shared_option

_TIMEOUT: Final = 1.0
"""The timeout of each step of a request."""
_REQUEST_TIMEOUT: Final = 2.0
"""The timeout of the whole request: the user waits for the completion."""

_BASH_SCRIPT: Final = """\
%(complete_func)s() {
    local type value current="${COMP_WORDS[COMP_CWORD]}" IFS=$'\\n'
    COMPREPLY=()
    while IFS=, read -r type value; do
        case $type in
            plain) COMPREPLY+=("$value") ;;
            file) compopt -o filenames; COMPREPLY+=($(compgen -f -- "$current")) ;;
            dir) compopt -o filenames; COMPREPLY+=($(compgen -d -- "$current")) ;;
        esac
    done < <(env COMP_WORDS="${COMP_LINE:0:COMP_POINT}" COMP_WORDBREAKS="$COMP_WORDBREAKS" \
        %(complete_var)s=bash_complete "$1")
}

complete -o nosort -F %(complete_func)s %(prog_name)s
"""


@add_completion_class
class _BashComplete(BashComplete):
    """Completion for bash, which splits words at colons and equals signs: `--url http://...` would be five words."""

    source_template = _BASH_SCRIPT
    _incomplete = ""

    def get_completion_args(self) -> tuple[list[str], str]:
        """Return the complete words after the name of the program, and the incomplete one."""
        # With a character at its end, the last word is always the incomplete one, also within quotes.
        *words, last = split_arg_string(os.environ["COMP_WORDS"] + "x")
        self._incomplete = last[:-1]
        return words[1:], self._incomplete

    def format_completion(self, item: "CompletionItem[Any]") -> str:  # not a generic class before click 8.2
        """Return an item without what bash does not replace: all up to the last character that separates words."""
        breaks = os.environ.get("COMP_WORDBREAKS", "")
        kept = max((self._incomplete.rfind(character) + 1 for character in ":=" if character in breaks), default=0)
        value = str(item.value)
        return f"{item.type},{value[kept:] if value.startswith(self._incomplete[:kept]) else value}"


@click.command(short_help="Print the script for shell completion.")
@click.argument("shell", type=click.Choice(["bash", "zsh", "fish"]))
def completion(shell: str) -> None:
    """Print the completion script for SHELL.

    For bash, add this to ~/.bashrc: eval "$(heksher-client completion bash)". For zsh, add the same with zsh to
    ~/.zshrc. For fish: heksher-client completion fish > ~/.config/fish/completions/heksher-client.fish
    """
    script_class = get_completion_class(shell)
    assert script_class is not None  # noqa: S101 - click supports all three
    program = click.get_current_context().find_root().command
    click.echo(script_class(program, {}, "heksher-client", "_HEKSHER_CLIENT_COMPLETE").source())


def profile_names() -> list[str]:
    """Return the names of the profiles; an empty list if there is no configuration file, or if it is invalid."""
    from heksher_client.profiles import _config as config

    try:
        return list(config.profile_names(config.config_path()))
    except ValueError:
        return []


def complete_profile(context: click.Context, parameter: click.Parameter, incomplete: str) -> list[str]:  # noqa: ARG001
    """Complete the name of a profile."""
    return [name for name in profile_names() if name.startswith(incomplete)]


def complete_setting(
    context: click.Context,
    parameter: click.Parameter,  # noqa: ARG001
    incomplete: str,
) -> list[CompletionItem]:
    """Complete the name of a setting, if the service responds within two seconds."""
    from heksher_client.profiles._connect import create_request_client

    try:
        client = create_request_client(
            shared_option(context, "profile"),
            url=shared_option(context, "url"),
            request_timeout=_REQUEST_TIMEOUT,
            timeout=_TIMEOUT,
        )
        with closing(client):
            settings = client.get_settings()
    except Exception:  # Any error at all: see the module's docstring.
        return []
    return [
        CompletionItem(name, help=f"{data.type}, {', '.join(data.configurable_features)}")
        for name, data in sorted(settings.items())
        if name.startswith(incomplete)
    ]
