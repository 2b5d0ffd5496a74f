"""What a client is to be made with: a profile of the configuration file, environment variables, and arguments.

The file is TOML, in the platform's folder for configuration, or where `HEKSHER_CONFIG` says:

    format = 1
    default_profile = "dev"

    [profiles.dev]
    url = "http://localhost:9999"
    context_features = ["environment", "user"]

    [profiles.prod]
    url = "https://settings.example.com"
    update_interval = 30
    context_features = ["environment", "user"]
    defaults = { environment = "prod" }

    [profiles.prod.oauth]
    issuer = "https://login.example.com"
    client_id = "shop"
"""

import os
import stat
import sys
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final, Literal, get_args

import msgspec

from heksher_client._drivers.options import merged_tables
from heksher_client.exceptions import ConfigError
from heksher_client.profiles._secret_checks import Layer, check_no_secrets, check_same_server, origin

_FORMAT: Final = 1
_LARGEST: Final = 1 << 20
"""Bytes of a configuration file."""


class OAuth(msgspec.Struct, kw_only=True, forbid_unknown_fields=True):
    """The OAuth 2 server that gives tokens for a service."""

    client_id: str
    client_secret: str | None = None
    grant: Literal["login", "client_credentials"] = "login"
    """Whether somebody signs in, or the program has a secret of its own."""
    issuer: str | None = None
    """Where the server describes itself; the other addresses need not be given then."""
    authorization_url: str | None = None
    token_url: str | None = None
    device_authorization_url: str | None = None
    revocation_url: str | None = None
    scope: str | None = None
    audience: str | None = None

    def __repr__(self) -> str:
        return f"<OAuth {self.client_id}>"


class Profile(msgspec.Struct, kw_only=True, forbid_unknown_fields=True, omit_defaults=True):
    """What a profile may hold: a client's options, in words that TOML and environment variables have as well."""

    url: str | None = None
    update_interval: float | None = None
    context_features: list[str] | None = None
    defaults: dict[str, str] | None = None
    """What `set_defaults` gets."""
    track_contexts: dict[str, str | list[str]] | None = None
    token: str | None = None
    """An access token that does not change."""
    oauth: OAuth | None = None
    headers: dict[str, str] | None = None
    cookies: dict[str, str] | None = None
    params: dict[str, str] | None = None
    user_agent: str | None = None
    timeout: float | None = None
    ca_file: str | None = None
    """The certificates that the service's is checked by: a file, in PEM."""
    proxy: str | None = None
    rate_limit: int | None = None
    rate_limit_interval: float | None = None
    start_timeout: float | None = None
    request_timeout: float | None = None
    max_response_bytes: int | None = None
    jitter: float | None = None
    max_backoff: float | None = None
    stale_after: float | None = None
    last_known_good: str | None = None
    max_age: float | None = None
    follow_changes: bool | None = None

    def __repr__(self) -> str:
        return f"<Profile {self.url and origin(self.url)}>"


class _File(msgspec.Struct, forbid_unknown_fields=True):
    format: int = _FORMAT
    default_profile: str | None = None
    profiles: dict[str, dict[str, Any]] = {}


_TABLES: Final = ("defaults", "track_contexts", "oauth", "headers", "cookies", "params")
"""What no environment variable has."""
_WHERE: Final = ("url", "token")
"""What says which service is meant, and as whom."""
_FROM_ENVIRONMENT: Final = tuple(name for name in Profile.__struct_fields__ if name not in _TABLES)


@dataclass(frozen=True, slots=True)
class Config:
    """What was found."""

    name: str
    """Of the profile; the server where there is none."""
    is_profile: bool
    profile: Profile = field(repr=False)
    path: Path | None
    """Where the configuration file is, or would be."""
    source: str
    """Where all of it is from, for errors."""


def config_path() -> Path | None:
    """Where the configuration file is, or would be; None if that cannot be told without the extra `profiles`."""
    if given := os.environ.get("HEKSHER_CONFIG"):
        try:
            return Path(given).expanduser().absolute()  # tokens are kept by it, wherever a program goes
        except RuntimeError:
            raise ConfigError(f"HEKSHER_CONFIG is {given}, and there is no such user") from None
    try:
        from platformdirs import user_config_path
    except ImportError:
        return None
    return user_config_path("heksher-client", appauthor=False) / "config.toml"


def load(
    name: str | None,
    overrides: Mapping[str, Any],
    otherwise: Mapping[str, Any] | None = None,
    *,
    is_itself: bool = False,
) -> Config:
    """Put together what a client is to be made with.

    Args:
        name: Of the profile; None for `HEKSHER_PROFILE`, or the default one, or the only one.
        overrides: Arguments that take the place of what a profile holds.
        otherwise: What the class of the client chooses, for what is found nowhere else.
        is_itself: Whether a profile that is named means the service that it names, whatever variables say: whoever
            types its name does not think of those.

    Raises:
        ConfigError: It is missing or wrong.
    """
    overrides = {key: value for key, value in overrides.items() if value is not None}
    path = config_path()
    file, is_private = _read(path)
    named, name = name, name or os.environ.get("HEKSHER_PROFILE") or None
    used = [field for field in _FROM_ENVIRONMENT if not (is_itself and named and field in _WHERE)]
    environment = {field: value for field in used if (value := os.environ.get(_variable(field)))}
    client_secret = os.environ.get("HEKSHER_CLIENT_SECRET")
    class_url = (otherwise or {}).get("service_url")
    has_url = "url" in environment or "url" in overrides or class_url is not None
    chosen = _choose(file, name, path, has_url=has_url)
    in_file = file.profiles.get(chosen, {}) if chosen else {}
    source = f"profile {chosen} in {path}" if chosen else "the environment"
    if not is_private:
        check_no_secrets(file.profiles, path)
    try:
        profile = msgspec.convert(in_file, Profile)
    except msgspec.ValidationError as error:
        raise ConfigError(f"{source}: {error}") from None
    check_same_server(
        [
            Layer("the client's class", class_url, otherwise or {}),
            Layer(source, in_file.get("url"), in_file),
            Layer("the environment", environment.get("url"), {**environment, "client_secret": client_secret}),
            Layer("the arguments", overrides.get("url"), overrides),
        ]
    )
    if client_secret and profile.oauth is not None:
        profile.oauth.client_secret = client_secret
    _put_in_place(profile, environment, overrides)
    if profile.url is None:
        profile.url = class_url
    if profile.url is None:
        raise ConfigError(f"{source} has no url: add one, or set HEKSHER_URL")
    return Config(chosen or origin(profile.url), chosen is not None, profile, path, source)


def _put_in_place(profile: Profile, environment: Mapping[str, str], overrides: Mapping[str, Any]) -> None:
    """Have variables and arguments take the place of what a profile holds.

    Raises:
        ConfigError: One of them is impossible.
    """
    for field_name, text in environment.items():
        setattr(profile, field_name, _from_environment(field_name, text))
    for field_name in Profile.__struct_fields__:
        if field_name in overrides:
            merged_value = _merged(field_name, getattr(profile, field_name), overrides[field_name])
            setattr(profile, field_name, merged_value)
    if "oauth" in overrides and "token" not in overrides:
        profile.token = None  # which would be shown instead
    if "oauth" in overrides:
        try:
            profile.oauth = msgspec.convert(overrides["oauth"], OAuth)
        except msgspec.ValidationError as error:
            raise ConfigError(f"oauth: {error}") from None


def _merged(name: str, less: Any, more: Any) -> Any:
    """Two values for a key: tables are merged."""
    if not isinstance(less, dict):
        return more
    if not isinstance(more, Mapping):
        raise ConfigError(f"{name} must be a dict, not {type(more).__name__}")
    return merged_tables(name, less, more)


def names(path: Path | None) -> list[str]:
    """The profiles that a configuration file has.

    Raises:
        ConfigError: It is malformed.
    """
    return list(_read(path)[0].profiles)


def _variable(field_name: str) -> str:
    return f"HEKSHER_{field_name.upper()}"


def _from_environment(field_name: str, text: str) -> Any:
    kind = next(info.type for info in msgspec.structs.fields(Profile) if info.name == field_name)
    given: Any = (
        text if field_name != "context_features" else [part.strip() for part in text.split(",") if part.strip()]
    )
    try:
        return msgspec.convert(given, kind, strict=False)
    except msgspec.ValidationError:
        wanted = next((words for one, words in _WANTED.items() if one in get_args(kind)), "text")
        raise ConfigError(f"{_variable(field_name)} must be {wanted}, not {text!r}") from None


_WANTED: Final = {bool: "true or false", int: "a whole number", float: "a number"}


def _read(path: Path | None) -> tuple[_File, bool]:
    """A configuration file, and whether only its owner may read it; an empty one where there is none.

    Raises:
        ConfigError: It cannot be used.
    """
    if path is None:
        return _File(), True
    try:
        with path.open("rb") as opened:
            mode = os.fstat(opened.fileno()).st_mode
            content = opened.read(_LARGEST + 1)
    except FileNotFoundError:
        if os.environ.get("HEKSHER_CONFIG"):
            raise ConfigError(f"there is no configuration file {path}: HEKSHER_CONFIG says that it is there") from None
        return _File(), True
    except OSError as error:
        raise ConfigError(f"the configuration file {path} cannot be read: {error.strerror}") from None
    if len(content) > _LARGEST:
        raise ConfigError(f"the configuration file {path} is larger than {_LARGEST:,} bytes: it is something else")
    try:
        table = tomllib.loads(content.decode("utf-8-sig"))  # Some editors mark the beginning.
    except ValueError as error:  # It is no TOML, no UTF-8, or has a number of thousands of digits.
        raise ConfigError(f"{path} is no TOML: {error}") from None
    except RecursionError:
        raise ConfigError(f"{path} is nested too deeply") from None
    known = table.get("format", _FORMAT)
    if not isinstance(known, int) or known < 1:
        raise ConfigError(f"{path}: format must be {_FORMAT}, not {known!r}")
    if known > _FORMAT:
        raise ConfigError(f"{path} is of format {known}, which is newer than this package ({_FORMAT}): upgrade it")
    try:
        file = msgspec.convert(table, _File)
    except msgspec.ValidationError as error:
        raise ConfigError(f"{path}: {error}") from None
    return file, sys.platform == "win32" or not mode & (stat.S_IRWXG | stat.S_IRWXO)


def _choose(file: _File, name: str | None, path: Path | None, *, has_url: bool) -> str | None:
    """Which profile is meant."""
    where = f"in {path}" if path else "(where that would be, the extra `profiles` tells, or HEKSHER_CONFIG)"
    there = ", ".join(file.profiles) or "none"
    if name is not None:
        if name not in file.profiles:
            raise ConfigError(f"there is no profile {name} {where}; there is: {there}")
        return name
    if file.default_profile is not None:
        if file.default_profile not in file.profiles:
            raise ConfigError(f"the default profile {file.default_profile} is not {where}; there is: {there}")
        return file.default_profile
    if len(file.profiles) == 1:
        return next(iter(file.profiles))
    if has_url:
        return None
    if file.profiles:
        raise ConfigError(f"which profile {where} is meant? Name one, or set HEKSHER_PROFILE; there is: {there}")
    raise ConfigError(
        f"nothing says where the service is: add [profiles.NAME] with its url {where}, or set HEKSHER_URL"
    )
