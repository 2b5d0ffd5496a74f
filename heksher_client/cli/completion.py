"""`heksher-client completion`: what a shell needs to complete commands, options, profiles and settings."""

import click
from click.shell_completion import get_completion_class

_PROGRAM = "heksher-client"


@click.command()
@click.argument("shell", type=click.Choice(["bash", "zsh", "fish"]))
def completion(shell: str) -> None:
    """Print the completion script of a SHELL.

    For bash: eval "$(heksher-client completion bash)" in ~/.bashrc. For zsh the same in ~/.zshrc. For fish:
    heksher-client completion fish > ~/.config/fish/completions/heksher-client.fish
    """
    kind = get_completion_class(shell)
    assert kind is not None  # noqa: S101 - click has these three
    click.echo(kind(click.get_current_context().find_root().command, {}, _PROGRAM, "_HEKSHER_CLIENT_COMPLETE").source())
