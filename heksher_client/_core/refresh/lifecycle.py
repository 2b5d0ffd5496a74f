"""The lifecycle of one client: new, starting, running, closed.

A client starts and closes in many places at once: a signal handler that closes it interrupts the same thread in
`set_as_main`, and Ctrl-C ends that at any point. A lock would make the handler wait for the code that it interrupts. So
each transition is one operation on a dict, which can neither be interrupted nor be made twice. Whatever comes between
two transitions checks afterwards that it is not closed, and can be repeated.
"""

from enum import Enum, auto


class Phase(Enum):
    """The phases, in their order. A phase may be skipped; none is entered again, except in the child of a fork."""

    NEW = auto()
    STARTING = auto()
    """From the call that sets the client as main. It is the main one, but its thread or task may never run."""
    RUNNING = auto()
    """From the beginning of the thread or task, which closes the connections at its end."""
    CLOSED = auto()


class Lifecycle:
    """The phase of one client, and who entered each."""

    def __init__(self) -> None:
        self._owners: dict[Phase, object] = {}

    @property
    def phase(self) -> Phase:
        """The last phase that was entered."""
        entered = self._owners.copy()
        return max(entered, key=lambda phase: phase.value, default=Phase.NEW)

    @property
    def is_open(self) -> bool:
        """True from the start to the end."""
        return Phase.STARTING in self._owners and not self.is_closed

    @property
    def is_closed(self) -> bool:
        return Phase.CLOSED in self._owners

    def enter(self, phase: Phase, owner: object) -> bool:
        """Enter a phase, unless it was entered before. Return True if this owner entered it, now or before.

        `RUNNING` is entered by the thread or task, or else by whatever closes a client that does not run yet: then it
        never runs, and that one closes the connections.
        """
        return self._owners.setdefault(phase, owner) is owner

    def after_fork(self) -> None:  # in the child of a fork
        """Return from `RUNNING`: the thread of the parent does not exist here."""
        self._owners.pop(Phase.RUNNING, None)
