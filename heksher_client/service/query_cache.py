"""A cache of query results, and the ETags that show whether a result is current.

Each setting has a tag, which every change of the setting or its rules replaces. An ETag is computed from the tags of
the queried settings, without reading their rules. A result is assembled from cached fragments, one for each setting,
which are valid as long as the setting's tag is the same.
"""

import threading
from collections import OrderedDict
from collections.abc import Mapping, Sequence
from hashlib import sha256
from typing import Final, NamedTuple

import orjson
from sqlalchemy import Connection, select

from heksher_client.service.history import State
from heksher_client.service.processes import PerProcess
from heksher_client.service.schema import ALIASES, SETTINGS

_MAX_BYTES: Final = 1 << 26
"""The total size of all cached fragments."""
_MAX_ETAGS: Final = 10_000


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
    context_filters: str
    include_metadata: bool


class QueryCache:
    """The ETags and fragments of one instance, with the least recently used removed first. Thread-safe."""

    def __init__(self) -> None:
        self._etags: OrderedDict[QueryParameters, tuple[State, str]] = OrderedDict()
        self._fragments: OrderedDict[FragmentKey, bytes] = OrderedDict()
        self._bytes = 0
        self._locks = PerProcess(threading.Lock)

    def etag(self, parameters: QueryParameters, state: State) -> str | None:
        """Return the ETag of a query result; None if anything has changed since it was stored."""
        with self._locks.get():
            stored_state, etag = self._etags.get(parameters, (None, None))
            return etag if stored_state == state else None

    def store_etag(self, parameters: QueryParameters, state: State, etag: str) -> None:
        """Store the ETag of a query result."""
        with self._locks.get():
            self._etags[parameters] = state, etag
            self._etags.move_to_end(parameters)
            if len(self._etags) > _MAX_ETAGS:
                self._etags.popitem(last=False)

    def fragment(self, key: FragmentKey) -> bytes | None:
        """Return the JSON for a setting, if it is stored."""
        with self._locks.get():
            if key in self._fragments:
                self._fragments.move_to_end(key)
            return self._fragments.get(key)

    def store_fragment(self, key: FragmentKey, fragment: bytes) -> None:
        """Store the JSON for a setting."""
        with self._locks.get():
            self._bytes += len(fragment) - len(self._fragments.pop(key, b""))
            self._fragments[key] = fragment
            while self._bytes > _MAX_BYTES:
                self._bytes -= len(self._fragments.popitem(last=False)[1])
