"""Shell completion: the `completion` command, and the completion of profiles and settings.

A shell cannot display errors, so completions that fail are empty.
"""

from contextlib import closing
from typing import Final

import click
from click.shell_completion import CompletionItem, get_completion_class

_TIMEOUT: Final = 1.0
"""The timeout of each step of a request."""
_REQUEST_TIMEOUT: Final = 2.0
"""The timeout of the whole request: the user waits for the completion."""


@click.command()
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


def complete_profile(context: click.Context, parameter: click.Parameter, incomplete: str) -> list[str]:  # noqa: ARG001
    """Complete the name of a profile."""
    from heksher_client.profiles import _config as config

    try:
        return [name for name in config.profile_names(config.config_path()) if name.startswith(incomplete)]
    except ValueError:
        return []


def complete_setting(
    context: click.Context,
    parameter: click.Parameter,  # noqa: ARG001
    incomplete: str,
) -> list[CompletionItem]:
    """Complete the name of a setting, if the service responds within two seconds."""
    from heksher_client.profiles._connect import create_request_client

    try:
        client = create_request_client(
            context.params.get("profile"),
            url=context.params.get("url"),
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
