"""Addition of a profile to the configuration file, by a sign-in with the URL of a service.

Text is appended. The rest of the file belongs to its user, and is never changed.
"""

import json
import os
from collections.abc import Mapping
from os import PathLike
from pathlib import Path
from typing import Any, Final
from urllib.parse import urlsplit

import httpx
import msgspec

from heksher_client._auth.secret_string import plain_text
from heksher_client.exceptions import ConfigError
from heksher_client.profiles._config import OAuth, check_url, config_path, is_private, parse_file
from heksher_client.profiles._secret_checks import check_no_secrets
from heksher_client.profiles._token_store import TokenStore

_PRIVATE: Final = 0o600


def ensure_profile(
    given_path: str | PathLike[str] | None, name: str | None, url: str, oauth: Mapping[str, Any] | None
) -> str:
    """Add a profile to the configuration file, unless the file has the same profile already.

    If it has the profile without a table `oauth`, that table is added.

    Args:
        given_path: The file, or its folder, as in `config_path`.
        name: The name of the profile. If None, the host of the URL.
        url: The URL of the service.
        oauth: The table `oauth` of the profile.

    Returns:
        The name.

    Raises:
        ConfigError: An argument is invalid, the file cannot be changed, or it has another profile of this name.
    """
    check_url(url, "url")
    name = name or str(urlsplit(url).hostname)
    table: dict[str, Any] = {"url": url}
    if oauth is not None:
        if not isinstance(oauth, Mapping):
            raise ConfigError(f"oauth must be a dict, not {type(oauth).__name__}")
        table["oauth"] = {key: plain_text(value) for key, value in oauth.items() if value is not None}
        try:
            msgspec.convert(table["oauth"], OAuth)
        except msgspec.ValidationError as error:
            raise ConfigError(f"oauth: {error}") from None
    path = config_path(given_path)
    if path is None:
        raise ConfigError("the location of the configuration file is unknown: install the extra `login`, or pass path")
    with TokenStore(path).lock():
        try:
            _add(path, name, table)
        except OSError as error:
            raise ConfigError(f"{path} cannot be written: {error.strerror}") from None
    return name


def table_name(profile: str) -> str:
    """Return the name of the table of a profile in TOML, where the names of hosts need quotes."""
    return f"profiles.{json.dumps(profile, ensure_ascii=False)}"


def _add(path: Path, name: str, table: Mapping[str, Any]) -> None:
    former, mode = _read(path)
    existing = {} if former is None else parse_file(path, former).profiles.get(name, {})
    new = {key: value for key, value in table.items() if not existing or (key == "oauth" and key not in existing)}
    for key in table:
        if key not in new and not _is_same(existing.get(key), table[key]):
            raise ConfigError(
                f"profile {name} in {path} has another {key}: pass another name as profile, or change it with an editor"
            )
    if not new:
        return
    if not is_private(mode):
        check_no_secrets({name: new}, path)
    start = "format = 1\n" if former is None else "" if former.endswith(b"\n") else "\n"
    added = (start + _as_toml(name, new)).encode(errors="replace")
    if not _is_added(path, (former or b"") + added, name, {**existing, **new}):
        what = f"{name}.oauth" if existing else name
        raise ConfigError(f"{path} has a form in which no profile can be added to it: add {what} with an editor")
    _append(path, len(former or b""), added)


def _is_same(existing: object, given: object) -> bool:
    """Compare two tables, or two URLs as requests to them are sent."""
    if isinstance(existing, str) and isinstance(given, str):
        try:
            return str(httpx.URL(existing)).rstrip("/") == str(httpx.URL(given)).rstrip("/")
        except httpx.InvalidURL:
            return False
    return existing == given


def _read(path: Path) -> tuple[bytes | None, int]:
    """Return the content and the mode of a file, or None and that of a new one if there is no file."""
    try:
        with path.open("rb") as stream:
            return stream.read(), os.fstat(stream.fileno()).st_mode
    except FileNotFoundError:
        return None, _PRIVATE


def _as_toml(name: str, table: Mapping[str, Any]) -> str:
    """Return a profile in TOML, or only its table `oauth`. Strings and quoted keys are written as in JSON."""
    header, tables = table_name(name), {}
    if "url" in table:
        tables[header] = {"url": table["url"]}
    if "oauth" in table:
        tables[f"{header}.oauth"] = table["oauth"]
    return "".join(
        f"\n[{header}]\n"
        + "".join(f"{key} = {json.dumps(value, ensure_ascii=False)}\n" for key, value in pairs.items())
        for header, pairs in tables.items()
    )


def _is_added(path: Path, content: bytes, name: str, table: Mapping[str, Any]) -> bool:
    """Return False if a file would not have the new profile, as it is in UTF-16 or has an inline table of profiles."""
    try:
        return parse_file(path, content).profiles.get(name) == table
    except ConfigError:
        return False


def _append(path: Path, size: int, added: bytes) -> None:
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, _PRIVATE)
    try:
        with os.fdopen(descriptor, "ab") as stream:
            stream.write(added)
    except OSError:  # The disk is full. A part of the profile would make the file invalid.
        os.truncate(path, size)
        raise
