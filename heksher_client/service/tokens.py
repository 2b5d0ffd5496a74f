"""Access tokens and the console's login sessions. The database stores their hashes only.

The role `read` may read everything, `declare` may also declare settings, as programs do, and `admin` may change
everything.
"""

import re
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from enum import StrEnum
from hashlib import sha256
from secrets import token_urlsafe
from typing import Any, Final

from sqlalchemy import Connection, delete, insert, select

from heksher_client._core.settings.names import TOKEN_NAME
from heksher_client.service.changes import record_change
from heksher_client.service.schema import SESSIONS, TOKENS

_PREFIX: Final = "heksher_"
"""Lets people and secret scanners recognize a leaked token."""
_MAX_NAME_LENGTH: Final = 255
_RESERVED_NAMES: Final = (".", "..")
"""They have a meaning in paths."""
_SESSION_LIFETIME: Final = timedelta(hours=12)


class Role(StrEnum):
    """The permissions of a token. Each role has those of the roles before it."""

    READ = "read"
    DECLARE = "declare"
    ADMIN = "admin"

    def includes(self, role: "Role") -> bool:
        """Return True if this role has the permissions of another one."""
        roles = list(Role)
        return roles.index(self) >= roles.index(role)


@dataclass(frozen=True, slots=True)
class Token:
    """A stored token, without its text, which only its owner has."""

    name: str
    role: Role
    created_at: datetime
    expires_at: datetime | None

    @property
    def is_expired(self) -> bool:
        return self.expires_at is not None and self.expires_at <= datetime.now(UTC)

    def as_json(self) -> dict[str, str]:
        """Return what distinguishes a token from others, also from a later one with its name, for the change log."""
        return {"name": self.name, "role": self.role, "created_at": self.created_at.astimezone(UTC).isoformat()}


class TokenError(ValueError):
    """A token cannot be created, or does not exist."""


def add_token(connection: Connection, name: str, role: Role, *, lifetime: timedelta | None = None) -> str:
    """Create a token.

    Args:
        connection: The connection of the transaction.
        name: The name of the owner, which the change log shows: letters, digits and `_.@-`.
        role: The permissions of the token.
        lifetime: The time until the token expires; None for no limit.

    Returns:
        The text of the token, which is not stored.

    Raises:
        TokenError: The name is invalid, or a token with this name exists.
    """
    if not re.fullmatch(TOKEN_NAME, name) or len(name) > _MAX_NAME_LENGTH or name in _RESERVED_NAMES:
        raise TokenError(f"{name!r} is not a valid token name: use at most 255 letters, digits and _.@-, not . or ..")
    if connection.scalar(select(TOKENS.c.name).where(TOKENS.c.name == name)) is not None:
        raise TokenError(f"the token {name} already exists; revoke it first, or choose another name")
    text, now = _PREFIX + token_urlsafe(32), datetime.now(UTC)
    token = Token(name, role, now, None if lifetime is None else now + lifetime)
    row = {"name": name, "role": role, "digest": _digest(text), "created_at": now, "expires_at": token.expires_at}
    connection.execute(insert(TOKENS).values(**row))
    record_change(connection, "token added", new=token.as_json())
    return text


def list_tokens(connection: Connection) -> list[Token]:
    """Return all tokens, sorted by name."""
    return sorted(map(_from_row, connection.execute(select(TOKENS))), key=lambda token: token.name)


def stored_token(connection: Connection, name: str) -> Token | None:
    """Return the token with a name, even if it has expired; None if there is none."""
    if not re.fullmatch(TOKEN_NAME, name):
        return None  # PostgreSQL would raise an error for NUL.
    row = connection.execute(select(TOKENS).where(TOKENS.c.name == name)).one_or_none()
    return None if row is None else _from_row(row)


def revoke_token(connection: Connection, name: str) -> None:
    """Delete a token, and with it the login sessions that were created with it.

    Raises:
        TokenError: There is no token with this name.
    """
    token = stored_token(connection, name)
    if token is None:
        raise TokenError(f"there is no token {name}")
    connection.execute(delete(TOKENS).where(TOKENS.c.name == name))
    record_change(connection, "token revoked", former=token.as_json())


def find_token(connection: Connection, text: str) -> Token | None:
    """Return the token with a text, unless it has expired."""
    return _unexpired(connection.execute(select(TOKENS).where(TOKENS.c.digest == _digest(text))).one_or_none())


def token_exists(connection: Connection, token: Token) -> bool:
    """Return False if a token was revoked, even if there is a later one with its name."""
    return token in map(_from_row, connection.execute(select(TOKENS).where(TOKENS.c.name == token.name)))


def create_session(connection: Connection, token: Token) -> str:
    """Create a login session for the owner of a token, and delete expired ones.

    Returns:
        The secret of the session, which is not stored.
    """
    now = datetime.now(UTC)
    connection.execute(delete(SESSIONS).where(SESSIONS.c.expires_at <= now))
    text = token_urlsafe(32)
    connection.execute(
        insert(SESSIONS).values(digest=_digest(text), token=token.name, expires_at=now + _SESSION_LIFETIME)
    )
    return text


def find_session(connection: Connection, text: str) -> Token | None:
    """Return the token that a session was created with, unless either has expired."""
    query = select(TOKENS).join_from(SESSIONS, TOKENS).where(SESSIONS.c.digest == _digest(text))
    return _unexpired(connection.execute(query.where(SESSIONS.c.expires_at > datetime.now(UTC))).one_or_none())


def delete_session(connection: Connection, text: str) -> None:
    """End a login session."""
    connection.execute(delete(SESSIONS).where(SESSIONS.c.digest == _digest(text)))


def _digest(text: str) -> str:
    # A plain hash is enough: a token has 256 random bits, so slowing down guesses, as for passwords, gains nothing.
    return sha256(text.encode(errors="replace")).hexdigest()


def _unexpired(row: Any) -> Token | None:
    token = None if row is None else _from_row(row)
    return None if token is None or token.is_expired else token


def _from_row(row: Any) -> Token:
    return Token(row.name, Role(row.role), row.created_at, row.expires_at)
