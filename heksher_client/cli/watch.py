"""The command `heksher-client watch`: show changes of settings and rules as they happen."""

import random
import signal
import threading
from collections.abc import Container, Iterator
from contextlib import suppress
from datetime import datetime
from fnmatch import fnmatchcase
from types import FrameType

import click

from heksher_client._clock import monotonic
from heksher_client._core.refresh.change_stream import STREAM_TIMEOUT, ChangeStream
from heksher_client._core.refresh.effects import Flow, OpenStream, Pause
from heksher_client._logging import shown_seconds
from heksher_client.cli.arguments import Seconds
from heksher_client.cli.command_client import CommandClient
from heksher_client.cli.comparison import Difference, compare
from heksher_client.cli.completion import complete_setting
from heksher_client.cli.connection import connect, service_options
from heksher_client.cli.output import console, json_option, print_json
from heksher_client.exceptions import CredentialError, ServiceUnavailableError, UnexpectedResponseError

_STREAM_POLL_INTERVAL = 60.0
"""Seconds between polls while a change stream is open, in case that it misses a change."""
_INTERRUPT_CHECK_INTERVAL = 0.5
"""Seconds between checks for an interrupt while waiting."""


@click.command(short_help="Show changes as they happen.")
@click.argument("pattern", default="*", shell_complete=complete_setting)
@click.option(
    "--interval",
    type=Seconds(0.1, 86_400),
    default=10.0,
    show_default=True,
    help="Seconds between polls, if the service does not offer a change stream.",
)
@click.option("--count", type=click.IntRange(1), help="Exit after this many changes.")
@service_options
@json_option
def watch(
    pattern: str, interval: float, count: int | None, profile: str | None, url: str | None, *, as_json: bool
) -> None:
    """Show changes of settings and rules as they happen.

    With PATTERN, only those of settings whose names match it, for example 'shop.*'. With --json, each change is one
    line of JSON. Changes of one object in quick succession are shown as one. Ctrl-C exits.
    """
    printed = 0
    with connect(profile, url) as client, suppress(KeyboardInterrupt):
        for change in _Watcher(client, interval):
            if not _matches(change, pattern):
                continue
            _print_change(change, as_json=as_json)
            printed += 1
            if printed == count:
                break


def _matches(change: Difference, pattern: str) -> bool:
    """True if the present or the former name of the setting matches, and for changes that belong to no setting."""
    names = (change.setting, change.before) if change.what == "name" else (change.setting,)
    return change.setting is None or any(fnmatchcase(str(name), pattern) for name in names)


def _print_change(change: Difference, *, as_json: bool) -> None:
    now = datetime.now().astimezone()
    if as_json:
        print_json({"at": now.isoformat(timespec="milliseconds"), **change._asdict()})
    else:
        console().print(f"{now:%H:%M:%S} {change}", markup=False, soft_wrap=True)


class _AllNames(Container[str]):
    """A container of every name: changes of all settings are of interest, those of new settings included."""

    def __contains__(self, name: object) -> bool:
        return True


_ALL_NAMES = _AllNames()


class _Watcher:
    """Iterates over the changes of a service. Fetches its state after each pushed change, and at intervals."""

    def __init__(self, client: CommandClient, interval: float) -> None:
        self._client, self._interval = client, interval
        self._wakeup = threading.Event()
        self._is_unavailable = self._is_interrupted = False
        self._stream = ChangeStream(max_backoff=interval, clock=monotonic, random=random.random)

    def __iter__(self) -> Iterator[Difference]:
        signal.signal(signal.SIGINT, self._interrupt)
        before = self._client.service_state()
        click.echo(f"Watching {len(before.settings)} settings of {self._client.service_url}.", err=True)
        while not self._is_interrupted:
            self._stream.record_position(before.position, _ALL_NAMES)
            if self._wants_to_follow:
                self._client.follow(self._follow)
            self._wait()
            try:
                after = self._client.service_state()
            except (ServiceUnavailableError, UnexpectedResponseError) as error:
                if isinstance(error, CredentialError) or getattr(error, "status", 0) in (401, 403):
                    raise  # Another attempt would fail as well.
                if not self._is_unavailable:
                    click.echo(f"Warning: {error}; retrying every {shown_seconds(self._interval)}.", err=True)
                self._is_unavailable = True
                continue
            if self._is_unavailable:
                click.echo("The service is available again.", err=True)
                self._is_unavailable = False
            yield from compare(before, after, is_same_service=True)
            before = after

    @property
    def _seconds_to_wait(self) -> float:
        """The longest time until the next poll."""
        is_pushed = self._stream.is_connected and not self._is_unavailable
        return max(self._interval, _STREAM_POLL_INTERVAL) if is_pushed else self._interval

    def _wait(self) -> None:
        """Wait for a pushed change, the end of the interval, or an interrupt."""
        deadline = monotonic() + self._seconds_to_wait
        while not self._is_interrupted and (remaining := deadline - monotonic()) > 0:
            if self._wakeup.wait(min(remaining, _INTERRUPT_CHECK_INTERVAL)):
                break
        self._wakeup.clear()

    def _interrupt(self, number: int, frame: FrameType | None) -> None:
        # The interpreter discards an exception that is raised inside a finalizer, for example. The attribute remains.
        self._is_interrupted = True
        signal.default_int_handler(number, frame)

    @property
    def _wants_to_follow(self) -> bool:
        return self._stream.is_offered and not self._client.closed

    def _follow(self) -> Flow[None]:
        """Follow the stream of changes, as long as there is one."""
        while self._wants_to_follow:
            reply = yield OpenStream(self._stream.open(), self._receive, STREAM_TIMEOUT)
            seconds = self._stream.close(reply, is_expected=self._client.closed)
            if not self._client.closed:
                yield Pause(seconds)

    def _receive(self, chunk: bytes) -> bool:
        """Process some bytes of the stream. Return True to go on."""
        # At once: only the clients of a fleet spread their requests.
        if self._stream.feed(chunk, _ALL_NAMES) is not None:
            self._wakeup.set()
        return self._wants_to_follow
