"""Objects that own something, such as connections, threads or callbacks, and so cannot be copied or pickled."""

from typing import NoReturn, SupportsIndex


class Resource:
    """An object that owns something. A copy would share it: closing the one would close it for the other."""

    __slots__ = ()

    def __reduce_ex__(self, protocol: SupportsIndex) -> NoReturn:
        raise TypeError(
            f"{type(self).__name__} objects cannot be copied or pickled, as they own connections, threads, locks or "
            "callbacks: create another one, in the process that uses it"
        )
