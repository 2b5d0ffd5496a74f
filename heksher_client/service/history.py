"""The state of a database, and its place in the history of the database: identity, epoch and revision.

Within an epoch, revisions only increase. A new epoch begins each time a service opens the database, and when a running
service finds an older state than before. So the state of a restored backup is newer than the states that it replaces,
although its revision is lower, and the state of a replica that lags is not.
"""

from collections.abc import Sequence
from datetime import datetime
from secrets import token_hex
from time import time
from typing import Any, Final, NamedTuple

from sqlalchemy import Connection, select, update
from starlette.datastructures import MutableHeaders
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from heksher_client.service import clock
from heksher_client.service.schema import STATE

REVISION: Final = "Heksher-Revision"
DATABASE: Final = "Heksher-Database"
"""The header with the identity and the epoch, separated by a dot."""
CONTEXT_VALUES: Final = {"Heksher-Context-Values": "any"}
"""The header that announces rules and filters with any value, which not all services of this interface accept."""
_MAX_EPOCHS: Final = 100
"""Former epochs that are stored."""
_SCOPE_KEY: Final = "heksher.state"

Epochs = Sequence[Sequence[int]]
"""Pairs: the last epochs, and the revision at which each began."""


class State(NamedTuple):
    """The state of a database as far as all responses depend on it."""

    revision: int
    context_features_tag: str
    database: str
    """The identity of the database, which its copies have as well."""
    epoch: int
    next_transition: datetime | None = None
    """No period of a rule begins or ends before this time; None if none will."""

    @property
    def is_overdue(self) -> bool:
        """True if a period may have begun or ended since, which the state does not contain."""
        return self.next_transition is not None and self.next_transition <= clock.now()

    @property
    def label(self) -> str:
        """The identity and the epoch, as in the header."""
        return f"{self.database}.{self.epoch}"

    def includes(self, other: "State") -> bool:
        """Return True if this state is the other one, or a later one of the same database."""
        return self.database == other.database and (self.epoch, self.revision) >= (other.epoch, other.revision)


_COLUMNS: Final = (
    STATE.c.revision,
    STATE.c.context_features_tag,
    STATE.c.database,
    STATE.c.epoch,
    STATE.c.next_transition,
)


def read_state(connection: Connection) -> State:
    """Return the current state, which is one row."""
    return State(*connection.execute(select(*_COLUMNS)).one())


def first_state() -> dict[str, Any]:
    """Return the row of a new database."""
    epoch = _now()
    return {
        "id": 1,
        "revision": 0,
        "context_features_tag": token_hex(8),
        "database": token_hex(8),
        "epoch": epoch,
        "epochs": [[epoch, 0]],
    }


def begin_epoch(connection: Connection) -> None:
    """Begin a new epoch. ETags stay valid."""
    # By the clock, as a restored database does not contain the last epoch.
    revision, former, epochs = connection.execute(select(STATE.c.revision, STATE.c.epoch, STATE.c.epochs)).one()
    epoch = max(former + 1, _now())
    epochs = [*epochs, [epoch, revision]][-_MAX_EPOCHS:]
    connection.execute(update(STATE).values(epoch=epoch, epochs=epochs))


def read_epochs(connection: Connection) -> Epochs:
    """Return the last epochs."""
    epochs: Epochs = connection.scalars(select(STATE.c.epochs)).one()
    return epochs


def is_continued(epochs: Epochs, epoch: int, revision: int) -> bool:
    """Return True if the current state has all changes up to a revision of an epoch, and no others."""
    if epoch not in [one for one, _ in epochs]:
        return False
    return revision <= min((began_at for one, began_at in epochs if one > epoch), default=revision)


def _now() -> int:
    return int(time() * 1000)


def set_response_state(scope: Scope, state: State) -> None:
    """Record the state that the response to a request is of."""
    scope[_SCOPE_KEY] = state


def response_state(scope: Scope) -> State | None:
    """Return the recorded state, if any."""
    state: State | None = scope.get(_SCOPE_KEY)
    return state


class StateHeaders:
    """A middleware that adds to all responses what the service supports, and the recorded state, if any."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        async def send_with_state(message: Message) -> None:
            if message["type"] == "http.response.start":
                headers = MutableHeaders(scope=message)
                headers.update(CONTEXT_VALUES)
                if (state := response_state(scope)) is not None:
                    headers[REVISION], headers[DATABASE] = str(state.revision), state.label
            await send(message)

        await self._app(scope, receive, send_with_state)
