"""A cache of query results, and the ETags that show whether a result is current.

Each setting has a tag, which every change of the setting or its rules replaces. An ETag is computed from the tags of
the queried settings, without reading their rules. A result is assembled from cached fragments, one for each setting,
which are valid as long as the setting's tag is the same.
"""

import threading
from collections import OrderedDict
from collections.abc import Mapping, Sequence
from hashlib import sha256
from typing import Any, Final, Generic, NamedTuple, TypeVar

import orjson
from sqlalchemy import Connection, select

from heksher_client.service.history import State
from heksher_client.service.processes import PerProcess
from heksher_client.service.schema import ALIASES, SETTINGS

_MAX_FRAGMENT_BYTES: Final = 1 << 26
_MAX_ETAG_BYTES: Final = 1 << 24
_ENTRY_BYTES: Final = 800
"""The size of an entry without the texts whose length is not limited, about: objects, short texts, places in a dict."""
_Key = TypeVar("_Key", bound=tuple[Any, ...])
_Value = TypeVar("_Value")


class QueryParameters(NamedTuple):
    """The parameters of a query."""

    settings: str | None
    """The names, separated by commas; None for all settings."""
    context_filters: str
    include_metadata: bool


class UnknownSettingsError(Exception):
    """Some of the queried settings do not exist."""

    def __init__(self, names: Sequence[str]) -> None:
        super().__init__(f"the following are not setting names: {list(names)}")


def setting_tags(connection: Connection, settings: str | None) -> dict[str, str]:
    """Return the tags of the queried settings by their canonical names, sorted.

    Args:
        connection: The connection of the transaction.
        settings: Names and aliases, separated by commas; None for all settings.

    Raises:
        UnknownSettingsError: Some of the settings do not exist.
    """
    query = select(SETTINGS.c.name, SETTINGS.c.tag)
    if settings is None:
        return dict(sorted(map(tuple, connection.execute(query))))
    names = [name for name in dict.fromkeys(settings.split(",")) if name]
    tags = dict(map(tuple, connection.execute(query.where(SETTINGS.c.name.in_(names)))))
    if others := [name for name in names if name not in tags]:
        by_alias = select(ALIASES.c.alias, SETTINGS.c.name, SETTINGS.c.tag).join_from(ALIASES, SETTINGS)
        found = connection.execute(by_alias.where(ALIASES.c.alias.in_(others))).all()
        if unknown := set(others) - {alias for alias, _, _ in found}:
            raise UnknownSettingsError([name for name in others if name in unknown])
        tags |= {name: tag for _, name, tag in found}
    return dict(sorted(tags.items()))


def compute_etag(state: State, parameters: QueryParameters, tags: Mapping[str, str]) -> str:
    """Return the ETag of a query result. It changes whenever the result may change."""
    text = orjson.dumps([state.context_features_tag, list(tags.items()), list(parameters)])
    return f'"{sha256(text).hexdigest()[:32]}"'


class FragmentKey(NamedTuple):
    """All that the result for a single setting depends on."""

    tag: str
    context_features_tag: str
    filters_digest: bytes
    """The hash of the context filters, which may be long."""
    include_metadata: bool


def fragment_keys(state: State, parameters: QueryParameters, tags: Mapping[str, str]) -> dict[str, FragmentKey]:
    """Return the key of the fragment of each setting, by its name."""
    digest = sha256(parameters.context_filters.encode()).digest()
    features_tag, include_metadata = state.context_features_tag, parameters.include_metadata
    return {name: FragmentKey(tag, features_tag, digest, include_metadata) for name, tag in tags.items()}


class _Entries(Generic[_Key, _Value]):
    """Values by key, up to a total size of both, with the least recently used removed first."""

    def __init__(self, max_bytes: int) -> None:
        self._values: OrderedDict[_Key, tuple[int, _Value]] = OrderedDict()
        self._bytes, self._max_bytes = 0, max_bytes

    def get(self, key: _Key) -> _Value | None:
        entry = self._values.get(key)
        if entry is None:
            return None
        self._values.move_to_end(key)
        return entry[1]

    def store(self, key: _Key, value: _Value, size: int) -> None:
        former = self._values.pop(key, None)
        self._values[key] = size, value
        self._bytes += size - (former[0] if former else 0)
        while self._bytes > self._max_bytes:
            self._bytes -= self._values.popitem(last=False)[1][0]


class QueryCache:
    """The ETags and fragments of one instance. Thread-safe."""

    # Requests choose the keys and their number, so the sizes of keys count as well.

    def __init__(self) -> None:
        self._etags: _Entries[QueryParameters, tuple[State, str]] = _Entries(_MAX_ETAG_BYTES)
        self._fragments: _Entries[FragmentKey, bytes] = _Entries(_MAX_FRAGMENT_BYTES)
        self._locks = PerProcess(threading.Lock)

    def etag(self, parameters: QueryParameters, state: State) -> str | None:
        """Return the ETag of a query result; None if anything has changed since it was stored."""
        with self._locks.get():
            stored_state, etag = self._etags.get(parameters) or (None, None)
            return etag if stored_state == state else None

    def store_etag(self, parameters: QueryParameters, state: State, etag: str) -> None:
        """Store the ETag of a query result."""
        size = _ENTRY_BYTES + len(parameters.settings or "") + len(parameters.context_filters)
        with self._locks.get():
            self._etags.store(parameters, (state, etag), size)

    def fragment(self, key: FragmentKey) -> bytes | None:
        """Return the JSON for a setting, if it is stored."""
        with self._locks.get():
            return self._fragments.get(key)

    def store_fragment(self, key: FragmentKey, fragment: bytes) -> None:
        """Store the JSON for a setting."""
        with self._locks.get():
            self._fragments.store(key, fragment, _ENTRY_BYTES + len(fragment))
