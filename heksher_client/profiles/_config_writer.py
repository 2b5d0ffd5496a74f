"""Addition of a profile to the configuration file, by a sign-in with the URL of a service.

Text is appended, and the default profile is set before all other text if another one would be used otherwise. The rest
of the file belongs to its user, and is never changed.
"""

import codecs
import json
import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from os import PathLike
from pathlib import Path
from typing import Any, Final, NamedTuple
from urllib.parse import urlsplit

import httpx
import msgspec

from heksher_client._auth.secret_string import plain_text
from heksher_client.exceptions import ConfigError
from heksher_client.profiles._config import (
    ConfigFile,
    FileContent,
    OAuth,
    check_url,
    config_path,
    convert,
    is_private,
    parse_file,
)
from heksher_client.profiles._secret_checks import check_no_secrets
from heksher_client.profiles._token_store import TokenStore

_PRIVATE: Final = 0o600


class AddedProfile(NamedTuple):
    """A profile, and the configuration file that has it."""

    name: str
    file: ConfigFile


@contextmanager
def added_profile(
    given_path: str | PathLike[str] | None, name: str | None, url: str, oauth: Mapping[str, Any] | None
) -> Iterator[AddedProfile]:
    """Add a profile to the configuration file, unless the file has the same profile already.

    If it has the profile without a table `oauth`, that table is added. The file is written at the end of the `with`
    block, which may check the profile before that. If the block raises an error, the file is not changed.

    Args:
        given_path: The file, or its folder, as in `config_path`.
        name: The name of the profile. If None, that of an existing profile with this URL, or else the host of the URL.
        url: The URL of the service.
        oauth: The table `oauth` of the profile.

    Raises:
        ConfigError: An argument is invalid, the file cannot be changed, or it has another profile of this name.
    """
    check_url(url, "url")
    table: dict[str, Any] = {"url": url}
    if oauth is not None:
        table["oauth"] = _checked_oauth(oauth)
    path = config_path(given_path)
    if path is None:
        raise ConfigError("the location of the configuration file is unknown: install the extra `login`, or pass path")
    with TokenStore(path).lock():
        with _report_errors(path):
            former, mode = _read(path)
        content = FileContent() if former is None else parse_file(path, former)
        name = name or _find_profile(path, content, url) or str(urlsplit(url).hostname)
        new = _new_keys(path, content, name, table)
        if not new:
            yield AddedProfile(name, ConfigFile(content, is_private(mode)))
            return
        if not is_private(mode):
            check_no_secrets({name: new}, path)
        changed = _with_profile(content, name, new)
        text = _insert(former, changed, name, new, is_new_default=changed.default_profile != content.default_profile)
        if not _is_valid(path, text, changed):
            what = name if "url" in new else f"{name}.oauth"
            raise ConfigError(f"{path} has a form in which no profile can be added to it: add {what} with an editor")
        yield AddedProfile(name, ConfigFile(changed, is_private(mode)))
        with _report_errors(path):
            _write(path, former or b"", text)


def _checked_oauth(oauth: Any) -> dict[str, Any]:
    if not isinstance(oauth, Mapping):
        raise ConfigError(f"oauth must be a dict, not {type(oauth).__name__}")
    table = {key: plain_text(value) for key, value in oauth.items() if value is not None}
    convert(table, OAuth, "oauth")
    return table


@contextmanager
def _report_errors(path: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise ConfigError(f"{path} cannot be written: {error.strerror}") from None


def _find_profile(path: Path, content: FileContent, url: str) -> str | None:
    """Return the name of the profile of a URL, or None if there is none. The default profile takes precedence.

    Raises:
        ConfigError: There are several, and none is the default.
    """
    names = [name for name, table in content.profiles.items() if _is_same(table.get("url"), url)]
    for default in (os.environ.get("HEKSHER_PROFILE"), content.default_profile):
        if default in names:
            return str(default)
    if len(names) > 1:
        raise ConfigError(
            f"several profiles in {path} have this url: pass one of their names as profile: {', '.join(names)}"
        )
    return names[0] if names else None


def table_name(profile: str) -> str:
    """Return the name of the table of a profile in TOML, where the names of hosts need quotes."""
    return f"profiles.{_as_value(profile)}"


def _new_keys(path: Path, content: FileContent, name: str, table: Mapping[str, Any]) -> dict[str, Any]:
    """Return the keys of a profile that are not in the file yet.

    Raises:
        ConfigError: The file has other values for the others.
    """
    existing = content.profiles.get(name, {})
    new = {key: value for key, value in table.items() if not existing or (key == "oauth" and key not in existing)}
    for key in table:
        if key not in new and not _is_same(existing.get(key), table[key]):
            raise ConfigError(
                f"profile {name} in {path} has another {key}: pass another name as profile, or change it with an editor"
            )
    return new


def _with_profile(content: FileContent, name: str, new: Mapping[str, Any]) -> FileContent:
    """Return the content with a new profile, or new keys of a profile.

    A profile that was the only one is used by default, and remains the default profile.
    """
    profiles, default = content.profiles, content.default_profile
    if default is None and len(profiles) == 1 and name not in profiles:
        default = next(iter(profiles))
    profiles = {**profiles, name: {**profiles.get(name, {}), **new}}
    return msgspec.structs.replace(content, profiles=profiles, default_profile=default)


def _insert(
    former: bytes | None, changed: FileContent, name: str, new: Mapping[str, Any], *, is_new_default: bool
) -> bytes:
    """Return the text of a file with a new profile, and with its default profile if that is new."""
    former = b"format = 1\n" if former is None else former
    newline = b"\r\n" if b"\r\n" in former else b"\n"
    mark = codecs.BOM_UTF8 if former.startswith(codecs.BOM_UTF8) else b""
    first = f"default_profile = {_as_value(changed.default_profile)}\n" if is_new_default else ""
    added = ("" if former.endswith(b"\n") or not former else "\n") + _as_toml(name, new)
    before, after = (text.encode(errors="replace").replace(b"\n", newline) for text in (first, added))
    return mark + before + former.removeprefix(mark) + after


def _as_value(value: object) -> str:
    """Return a string in TOML, which is written as in JSON."""
    return json.dumps(value, ensure_ascii=False)


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
    """Return a profile in TOML, or only its table `oauth`. Quoted keys are written as in JSON, like strings."""
    header, tables = table_name(name), {}
    if "url" in table:
        tables[header] = {"url": table["url"]}
    if "oauth" in table:
        tables[f"{header}.oauth"] = table["oauth"]
    return "".join(
        f"\n[{header}]\n" + "".join(f"{key} = {_as_value(value)}\n" for key, value in pairs.items())
        for header, pairs in tables.items()
    )


def _is_valid(path: Path, text: bytes, content: FileContent) -> bool:
    """Return False if a file would have another content, as it is in UTF-16 or has an inline table of profiles."""
    try:
        return parse_file(path, text) == content
    except ConfigError:
        return False


def _write(path: Path, former: bytes, text: bytes) -> None:
    """Write a file in place, so that links to it, its owner and its mode remain."""
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | getattr(os, "O_BINARY", 0), _PRIVATE)
    try:
        with os.fdopen(descriptor, "wb") as stream:
            stream.write(text)
    except OSError:  # The disk is full. A part of the profile would make the file invalid.
        with path.open("r+b") as stream:
            stream.write(former)
            stream.truncate()
        raise
