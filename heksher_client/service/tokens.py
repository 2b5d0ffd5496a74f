"""Tokens with a role each, and the sessions of those who have logged in with one. The database holds only hashes.

The role `read` is for programs: it reads everything, and declares settings. The role `admin` may change everything.
"""

import re
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from enum import StrEnum
from hashlib import sha256
from secrets import token_urlsafe
from typing import Any, Final

from sqlalchemy import Connection, delete, insert, select

from heksher_client.service.changes import note
from heksher_client.service.schema import SESSIONS, TOKENS

_PREFIX: Final = "heksher_"
"""So that a token that has got lost somewhere is recognized for what it is."""
_NAME: Final = re.compile(r"[a-zA-Z0-9_.@-]{1,255}")
_SESSION: Final = timedelta(hours=12)
"""How long a login lasts."""


class Role(StrEnum):
    """What the owner of a token may do."""

    READ = "read"
    ADMIN = "admin"


@dataclass(frozen=True, slots=True)
class Token:
    """A token that there is. Its text is nowhere but with its owner."""

    name: str
    role: Role
    created_at: datetime
    expires_at: datetime | None

    @property
    def is_expired(self) -> bool:
        return self.expires_at is not None and self.expires_at <= datetime.now(UTC)


class TokenError(ValueError):
    """A token that cannot be made, or is not there."""


def add_token(connection: Connection, name: str, role: Role, *, lifetime: timedelta | None = None) -> str:
    """Make a token.

    Args:
        connection: Of the transaction.
        name: Of its owner, as the log of changes shall show it: letters, digits and `_.@-`.
        role: What it is for.
        lifetime: After which it is refused.

    Returns:
        Its text, which is to be had only now.

    Raises:
        TokenError: The name is none, or there is a token of that name.
    """
    if not _NAME.fullmatch(name):
        raise TokenError(f"{name!r} is no name for a token: letters, digits and _.@- only, at most 255")
    if connection.scalar(select(TOKENS.c.name).where(TOKENS.c.name == name)) is not None:
        raise TokenError(f"there is a token {name} already; revoke it first, or choose another name")
    text, now = _PREFIX + token_urlsafe(32), datetime.now(UTC)
    expires_at = None if lifetime is None else now + lifetime
    row = {"name": name, "role": role, "digest": _digest(text), "created_at": now, "expires_at": expires_at}
    connection.execute(insert(TOKENS).values(**row))
    note(connection, "token added", new={"name": name, "role": role})
    return text


def tokens(connection: Connection) -> list[Token]:
    """All tokens, by name."""
    return sorted(map(_token, connection.execute(select(TOKENS))), key=lambda token: token.name)


def revoke_token(connection: Connection, name: str) -> None:
    """Have a token refused from now on, and end the sessions that began with it.

    Raises:
        TokenError: There is none of that name.
    """
    held = connection.execute(select(TOKENS).where(TOKENS.c.name == name)).one_or_none()
    if held is None:
        raise TokenError(f"there is no token {name}")
    connection.execute(delete(TOKENS).where(TOKENS.c.name == name))
    note(connection, "token revoked", former={"name": name, "role": held.role})


def find_token(connection: Connection, text: str) -> Token | None:
    """The token with a text, unless it has expired."""
    return _valid(connection.execute(select(TOKENS).where(TOKENS.c.digest == _digest(text))).one_or_none())


def begin_session(connection: Connection, token: Token) -> str:
    """Let the owner of a token in for some hours.

    Returns:
        What to know the session by, which is to be had only now.
    """
    now = datetime.now(UTC)
    connection.execute(delete(SESSIONS).where(SESSIONS.c.expires_at <= now))
    text = token_urlsafe(32)
    connection.execute(insert(SESSIONS).values(digest=_digest(text), token=token.name, expires_at=now + _SESSION))
    return text


def find_session(connection: Connection, text: str) -> Token | None:
    """The token that a session began with, unless either has expired."""
    query = select(TOKENS).join_from(SESSIONS, TOKENS).where(SESSIONS.c.digest == _digest(text))
    return _valid(connection.execute(query.where(SESSIONS.c.expires_at > datetime.now(UTC))).one_or_none())


def end_session(connection: Connection, text: str) -> None:
    """Log out."""
    connection.execute(delete(SESSIONS).where(SESSIONS.c.digest == _digest(text)))


def _digest(text: str) -> str:
    # A token is as random as its hash is long, so there is nothing to guess: a slow hash would only cost time.
    return sha256(text.encode(errors="replace")).hexdigest()


def _valid(row: Any) -> Token | None:
    token = None if row is None else _token(row)
    return None if token is None or token.is_expired else token


def _token(row: Any) -> Token:
    return Token(row.name, Role(row.role), row.created_at, row.expires_at)
