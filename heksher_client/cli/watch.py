"""`heksher-client watch`: the changes of settings and rules, as they arrive."""

import random
import signal
import threading
from collections.abc import Container, Iterator
from contextlib import suppress
from datetime import datetime
from fnmatch import fnmatchcase
from time import monotonic
from types import FrameType

import click

from heksher_client._core.refresh.change_stream import ChangeStream
from heksher_client._drivers.admin import AdminClient
from heksher_client.cli.connection import Seconds, asking, setting_names, with_service
from heksher_client.cli.differences import Difference, differences
from heksher_client.cli.output import as_json_option, console, print_json
from heksher_client.exceptions import CredentialError, ServiceUnavailableError, UnexpectedResponseError

_BESIDE = 60.0
"""Seconds between questions, where the service tells of changes by itself: in case that it does not tell of all."""
_SLICE = 0.5
"""Seconds after which one who waits looks around."""


@click.command()
@click.argument("pattern", default="*", shell_complete=setting_names)
@click.option("--interval", type=Seconds(0.1, 86_400), default=10.0, show_default=True,
              help="Seconds between questions, where the service does not tell of changes by itself.")  # fmt: skip
@click.option("--count", type=click.IntRange(1), help="End after so many changes.")
@with_service
@as_json_option
def watch(
    pattern: str, interval: float, count: int | None, profile: str | None, url: str | None, *, as_json: bool
) -> None:
    """Show the changes of settings and rules as they are made: of all settings, or of those like PATTERN ('shop.*').

    With --json, one line of JSON for each. Several changes of one thing within moments are shown as one. Ends with
    Ctrl-C.
    """
    shown = 0
    with asking(profile, url) as operator, suppress(KeyboardInterrupt):
        for change in _Watching(operator, interval):
            if not _concerns(change, pattern):
                continue
            _show(change, as_json=as_json)
            shown += 1
            if shown == count:
                break


def _concerns(change: Difference, pattern: str) -> bool:
    """Whether the name of a setting, or its former one, is like a pattern. What is no setting's concerns all."""
    names = (change.setting, change.before) if change.what == "name" else (change.setting,)
    return change.setting is None or any(fnmatchcase(str(name), pattern) for name in names)


def _show(change: Difference, *, as_json: bool) -> None:
    now = datetime.now().astimezone()
    if as_json:
        print_json({"at": now.isoformat(timespec="milliseconds"), **change._asdict()})
    else:
        console().print(f"{now:%H:%M:%S} {change}", markup=False, soft_wrap=True)


class _Everything(Container[str]):
    def __contains__(self, name: object) -> bool:
        return True


_EVERYTHING = _Everything()


class _Watching:
    """Asks again and again what a service holds: when it says that something has changed, and at intervals."""

    def __init__(self, operator: AdminClient, interval: float) -> None:
        self._operator, self._interval = operator, interval
        self._woken = threading.Event()
        self._is_lost = self._is_interrupted = False
        self._following = ChangeStream(
            is_wanted=True,
            max_backoff=interval,
            names=lambda: _EVERYTHING,
            refresh_within=self._ask_within,
            is_open=lambda: not operator.is_closed,
            clock=monotonic,
            random=random.random,
        )

    def __iter__(self) -> Iterator[Difference]:
        signal.signal(signal.SIGINT, self._interrupt)
        before = self._operator.snapshot()
        click.echo(f"Watching {len(before.settings)} settings of {self._operator.service_url}.", err=True)
        while not self._is_interrupted:
            self._following.note_answers(before.revision)
            if self._following.is_offered:
                self._operator.follow(self._following)
            self._wait()
            try:
                after = self._operator.snapshot()
            except (ServiceUnavailableError, UnexpectedResponseError) as error:
                if isinstance(error, CredentialError) or getattr(error, "status", 0) in (401, 403):
                    raise  # which no waiting mends
                self._note_loss(error)
                continue
            if self._is_lost:
                click.echo("The service answers again.", err=True)
                self._is_lost = False
            yield from differences(before, after)
            before = after

    def _wait(self) -> None:
        """Until there may be something new."""
        seconds = max(self._interval, _BESIDE) if self._following.is_following else self._interval
        until = monotonic() + seconds
        while not self._is_interrupted and (left := until - monotonic()) > 0:
            if self._woken.wait(min(left, _SLICE)):
                break
        self._woken.clear()

    def _interrupt(self, number: int, frame: FrameType | None) -> None:
        # An exception that is raised in whatever the interpreter does by itself just then is lost; the mark is not.
        self._is_interrupted = True
        signal.default_int_handler(number, frame)

    def _ask_within(self, seconds: float) -> None:  # noqa: ARG002 - one who watches is not a fleet
        self._woken.set()

    def _note_loss(self, error: Exception) -> None:
        if not self._is_lost:
            click.echo(f"Note: {error}; asking again every {self._interval:g} seconds.", err=True)
        self._is_lost = True
