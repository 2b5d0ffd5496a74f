"""From what the service holds for a setting to what is put in place for it, in steps between which others run."""

from collections.abc import Iterable
from hashlib import sha256
from typing import Final, NamedTuple, TypeVar

import msgspec

from heksher_client._core.refresh import protocol
from heksher_client._core.refresh.decoding import to_rule_set
from heksher_client._core.refresh.effects import Flow, Pause
from heksher_client._core.refresh.setting_state import AnyEntry, AppliedUpdate
from heksher_client._core.settings.context import Tracking
from heksher_client._core.settings.cooperative import Work

T = TypeVar("T")

_WORK_BETWEEN_PAUSES: Final = 5000
"""Rules worked on before others get their turn: a few milliseconds."""
_BYTES_AS_MUCH_WORK_AS_A_RULE: Final = 500
"""Where bytes are only compared."""


class PreparedUpdate(NamedTuple):
    """What is to be put in place for a setting."""

    setting: AnyEntry
    loaded: AppliedUpdate
    answer: msgspec.Raw | None
    """What it was made of, if that is to be kept."""


class Loading:
    """The work of one client, of which others are to notice nothing."""

    def __init__(self, *, keeps_answers: bool) -> None:
        self._keeps_answers = keeps_answers
        self._work_since_pause = 0

    def digest(self, answer: msgspec.Raw) -> Flow[bytes]:
        """What tells one answer from another."""
        yield from self._rest(len(answer) // _BYTES_AS_MUCH_WORK_AS_A_RULE)
        digest = sha256(answer).digest()
        yield from self._rest(len(answer) // _BYTES_AS_MUCH_WORK_AS_A_RULE)
        return digest

    def convert(
        self,
        name: str,
        answer: msgspec.Raw,
        digest: bytes,
        settings: Iterable[AnyEntry],
        tracking: Tracking,
        order: tuple[str, ...],
    ) -> Flow[list[PreparedUpdate]]:
        """Convert and index what the service holds under a name, for all settings that go by it.

        Raises:
            UnexpectedResponseError: It is not what a setting has.
        """
        prepared = []
        queried = protocol.parse_queried_setting(name, answer)
        yield from self._rest(len(queried.rules or queried.undecoded))
        for setting in settings:
            validators = setting.validators
            made = yield from self.paced(to_rule_set(setting, queried, tracking=tracking, order=order))
            loaded = AppliedUpdate(made, validators, tracking, order, digest)
            prepared.append(PreparedUpdate(setting, loaded, answer if self._keeps_answers else None))
        return prepared

    def paced(self, work: Work[T]) -> Flow[T]:
        """Do some work, and let others run after every so much of it."""
        while True:
            try:
                done = next(work)
            except StopIteration as end:
                result: T = end.value
                return result
            yield from self._rest(done)

    def _rest(self, done: int) -> Flow[None]:
        """Let others run, if enough work was done since they last did."""
        self._work_since_pause += done
        if self._work_since_pause >= _WORK_BETWEEN_PAUSES:
            self._work_since_pause = 0
            yield Pause()
