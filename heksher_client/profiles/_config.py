"""Configuration of a client: a profile of the configuration file, environment variables, and arguments.

The file is TOML. It is `config.toml` in the user's configuration directory, or the file that an argument or
`HEKSHER_CONFIG` names, or `config.toml` in the folder that this names:

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

All errors are `ConfigError`, and no message contains the value of a secret.
"""

import json
import os
import stat
import sys
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass, field
from difflib import get_close_matches
from os import PathLike
from pathlib import Path
from typing import Any, Final, Literal, NamedTuple, TypeVar, get_args, get_origin

import msgspec

from heksher_client._auth.secret_string import plain_text
from heksher_client._drivers.options import merge_option
from heksher_client._http.endpoint import parse_service_url
from heksher_client._logging import logger
from heksher_client.exceptions import ConfigError
from heksher_client.profiles._secret_checks import ConfigSource, check_no_secrets, check_secret_destination, origin

StructT = TypeVar("StructT", bound=msgspec.Struct)

_FORMAT: Final = 1
_FILE_NAME: Final = "config.toml"
_SUFFIX: Final = ".toml"
"""A path that does not exist is that of a folder, unless it has this suffix."""
_MAX_FILE_BYTES: Final = 1 << 20


class OAuth(msgspec.Struct, kw_only=True, forbid_unknown_fields=True):
    """The table `oauth` of a profile: an authorization server and the client that is registered there."""

    client_id: str
    client_secret: str | None = None
    grant: Literal["login", "client_credentials"] = "login"
    """`login` if users sign in, `client_credentials` if the program has a client secret."""
    client_auth: Literal["basic", "post"] | None = None
    """How the client secret is sent. If None, as the metadata of the issuer requires it."""
    issuer: str | None = None
    """The issuer URL. The URLs below are optional if its metadata contains them."""
    authorization_url: str | None = None
    token_url: str | None = None
    device_authorization_url: str | None = None
    revocation_url: str | None = None
    redirect_url: str = "http://127.0.0.1/callback"
    """The address at which a browser on another device ends, if the server has no device codes."""
    scope: str | None = None
    audience: str | None = None

    def __repr__(self) -> str:
        return f"<OAuth {self.client_id}>"


class Profile(msgspec.Struct, kw_only=True, forbid_unknown_fields=True, omit_defaults=True):
    """A profile: the options of a client that TOML can express."""

    url: str | None = None
    update_interval: float | None = None
    context_features: list[str] | None = None
    defaults: dict[str, str] | None = None
    """The arguments of `set_defaults`."""
    track_contexts: dict[str, str | list[str]] | None = None
    """The arguments of `track_contexts`."""
    token: str | None = None
    """A fixed access token."""
    oauth: OAuth | None = None
    headers: dict[str, str] | None = None
    cookies: dict[str, str] | None = None
    params: dict[str, str] | None = None
    user_agent: str | None = None
    timeout: float | None = None
    ca_file: str | None = None
    """A PEM file with the CA certificates that server certificates are verified against."""
    proxy: str | None = None
    rate_limit: float | None = None
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


class FileContent(msgspec.Struct, forbid_unknown_fields=True):
    """The content of a configuration file. Its profiles are checked only when they are used."""

    format: int = _FORMAT
    default_profile: Any = None
    """The name of a profile. It is checked only if it is needed."""
    profiles: dict[str, dict[str, Any]] = {}


class ConfigFile(NamedTuple):
    """The configuration file, which may not exist."""

    content: FileContent = FileContent()
    is_private: bool = True
    """Whether only its owner can read it."""
    problem: str | None = None
    """Why it cannot be read. This is an error only if the file is needed: the home directory may be that of another
    user."""

    @property
    def problem_note(self) -> str:
        """The problem as a part of an error message, if there is one."""
        return "" if self.problem is None else f" ({self.problem})"

    def require_readable(self) -> None:
        """Raise if the file cannot be read.

        Raises:
            ConfigError: It cannot.
        """
        if self.problem is not None:
            raise ConfigError(self.problem)


_TABLE_FIELDS: Final = ("defaults", "track_contexts", "oauth", "headers", "cookies", "params")
_SERVICE_FIELDS: Final = ("url", "token")
"""The fields that determine which service is used, and with which credentials."""
ENVIRONMENT_FIELDS: Final = tuple(name for name in Profile.__struct_fields__ if name not in _TABLE_FIELDS)
"""The fields of a profile that have an environment variable."""
_SERVER_FIELDS: Final = (*_SERVICE_FIELDS, "oauth", "headers", "cookies", "params")
"""The fields of a profile that are sent to its service, or determine what is."""
_EXPECTED_VALUES: Final = {bool: "true or false", int: "a whole number", float: "a number"}


@dataclass(frozen=True, slots=True)
class Config:
    """The configuration of a client, merged from all sources."""

    name: str
    """The name of the profile, or the origin of the service URL if there is no profile."""
    is_profile: bool
    profile: Profile = field(repr=False)
    path: Path | None
    """The path of the configuration file, which need not exist; None if it is unknown."""
    source: str
    """The profile and its file, or the environment, for error messages."""
    requires_sign_in: bool = True
    """Whether a user has to be signed in if the profile has a sign-in."""
    lends_options: bool = False
    """Whether the profile only lends options to a service with another URL."""
    is_path_argument: bool = False
    """Whether an argument of the program names the file, so that commands need `HEKSHER_CONFIG` to find it."""


def config_path(path: str | PathLike[str] | None = None) -> Path | None:
    """Return the path of the configuration file, which need not exist.

    Args:
        path: The file, or its folder: the file is `config.toml` there. A path that does not exist is that of a folder,
            unless it ends with `.toml`. If None, `HEKSHER_CONFIG`, which may be a folder as well, or else the
            configuration directory of the platform.

    Returns:
        None if neither is given and the extra `profiles` is not installed, or there is no home directory.

    Raises:
        ConfigError: The path is empty, or refers to the home directory of an unknown user.
        TypeError: The path is not a string or a path.
    """
    if path is not None and not isinstance(path, str | PathLike):
        raise TypeError(f"path must be a str or an os.PathLike, not {type(path).__name__}")
    if path == "":
        raise ConfigError("path must not be empty: leave it out, or pass the path of the file or its folder")
    given, source = (path, "path") if path is not None else (os.environ.get("HEKSHER_CONFIG"), "HEKSHER_CONFIG")
    if given:
        try:
            # Absolute, as the path of the token file is derived from it and the working directory may change.
            absolute = Path(given).expanduser().absolute()
        except RuntimeError:
            raise ConfigError(f"{source}: cannot expand {given}: unknown user") from None
        is_folder = os.fspath(given).endswith(("/", os.sep)) or _is_folder(absolute)
        return absolute / _FILE_NAME if is_folder else absolute
    try:
        from platformdirs import user_config_path
    except ImportError:
        return None
    try:
        directory = user_config_path("heksher-client", appauthor=False)
    except RuntimeError:  # There is no home directory. Older versions return a relative path.
        return None
    return directory / _FILE_NAME if directory.is_absolute() else None


def _is_folder(path: Path) -> bool:
    try:
        return path.is_dir() or not (path.suffix == _SUFFIX or path.exists())
    except OSError:  # The error that follows when it is read is better.
        return False


def load(
    name: str | None,
    overrides: Mapping[str, Any],
    class_options: Mapping[str, Any] | None = None,
    *,
    prefer_named: bool = False,
    sends_requests_only: bool = False,
    may_lend_options: bool = True,
    url_name: str = "url",
    path: str | PathLike[str] | None = None,
    file: ConfigFile | None = None,
) -> Config:
    """Load the configuration of a client.

    Args:
        name: The name of the profile. If None, `HEKSHER_PROFILE`, the default profile, or the only profile.
        overrides: Arguments with the highest priority.
        class_options: Options of the client class, with the lowest priority.
        prefer_named: Ignore `HEKSHER_URL` and `HEKSHER_TOKEN` if `name` is given. For the command line, where a user
            who names a profile expects the service of that profile.
        sends_requests_only: The client is that of a command. If the command does not name a profile, the profile that
            is used instead lends only its other options to a service with another URL, and nothing is sent there that
            is meant for the service of the profile.
        may_lend_options: Whether that profile lends its options, as they are valid.
        url_name: The name of the argument `url`, for error messages.
        path: The configuration file, or its folder, as in `config_path`.
        file: The content that the file will have. If None, the file is read.

    Raises:
        ConfigError: The configuration is incomplete or invalid.
    """
    overrides = {key: value for key, value in overrides.items() if value is not None}
    fields = [field for field in ENVIRONMENT_FIELDS if not (prefer_named and name and field in _SERVICE_FIELDS)]
    environment = {field: value for field in fields if (value := os.environ.get(_variable(field)))}
    client_secret = os.environ.get("HEKSHER_CLIENT_SECRET")
    class_url = (class_options or {}).get("service_url")
    has_url = "url" in environment or "url" in overrides or class_url is not None
    file_path, chosen, table, source = _load_profile(
        name, path, file, has_url=has_url, is_optional=sends_requests_only and has_url
    )
    own_url = table.get("url")
    _check_first_url({
        url_name: overrides.get("url"),
        _variable("url"): environment.get("url"),
        f"{source}: url": own_url if isinstance(own_url, str) else None,  # Another type is refused below.
        "service_url of the client class": class_url,
    })  # fmt: skip
    lends_options = sends_requests_only and not name and _is_foreign(own_url, overrides, environment)
    if lends_options:
        table = {key: value for key, value in table.items() if key not in _SERVER_FIELDS and may_lend_options}
        chosen = client_secret = None
    profile, table = _convert_profile(table, source, is_optional=lends_options)
    check_secret_destination(
        [
            ConfigSource("the client class", class_url, class_options or {}),
            ConfigSource(source, own_url, table),
            ConfigSource("the environment", environment.get("url"), {**environment, "client_secret": client_secret}),
            ConfigSource("the arguments", overrides.get("url"), overrides),
        ]
    )
    if client_secret and profile.oauth is not None:
        profile.oauth.client_secret = client_secret
    _apply(profile, environment, overrides)
    if profile.url is None:
        profile.url = class_url
    if profile.url is None:
        raise ConfigError(f"{source} has no url: add one, or set HEKSHER_URL")
    requires_sign_in = bool(name) or not sends_requests_only or "url" not in overrides
    return Config(
        chosen or origin(profile.url),
        chosen is not None,
        profile,
        file_path,
        source,
        requires_sign_in,
        lends_options,
        is_path_argument=path is not None,
    )


def _check_first_url(urls: Mapping[str, str | None]) -> None:
    """Check the URL that is used: the first one that is given, by its source.

    Raises:
        ConfigError: It is invalid.
    """
    source = next((name for name, url in urls.items() if url is not None), next(iter(urls)))
    check_url(urls[source], source)


def _convert_profile(table: dict[str, Any], source: str, *, is_optional: bool) -> tuple[Profile, dict[str, Any]]:
    """Return a profile, and the table that it is made of.

    Args:
        table: The table of the profile.
        source: Its place in the configuration file.
        is_optional: Whether to log the error, and to use an empty profile, if it is invalid.

    Raises:
        ConfigError: It is invalid.
    """
    try:
        return convert(table, Profile, source), table
    except ConfigError as error:
        if not is_optional:
            raise
        warn_unused(error)
        return Profile(), {}


def warn_unused(error: object) -> None:
    """Log an error in a configuration that is not needed."""
    logger.warning("%s; it is not used, as the URL is given", error)


def _load_profile(
    name: str | None,
    given: str | PathLike[str] | None,
    file: ConfigFile | None,
    *,
    has_url: bool,
    is_optional: bool,
) -> tuple[Path | None, str | None, dict[str, Any], str]:
    """Return the path of the configuration file, the name of the profile and its table, and their source.

    Args:
        name: The name of the profile, as in `load`.
        given: The argument `path` of `load`.
        file: The content that the file will have. If None, the file is read.
        has_url: Another source sets the service URL, so that a profile is optional.
        is_optional: A file that is not valid is ignored, unless `name` is given.

    Raises:
        ConfigError: The file is needed, and not valid, or does not have the profile.
    """
    path = None
    try:
        path = config_path(given)
        file = _read_file(path, _source_of_path(given)) if file is None else file
        chosen = _choose_profile(file, name or os.environ.get("HEKSHER_PROFILE") or None, path, has_url=has_url)
        if not file.is_private:
            check_no_secrets(file.content.profiles, path)
    except ConfigError as error:
        if name or not is_optional:
            raise
        warn_unused(error)
        return path, None, {}, "the environment"
    if chosen is None:
        return path, None, {}, f"the environment{file.problem_note}"
    return path, chosen, file.content.profiles[chosen], f"profile {chosen} in {path}"


def _is_foreign(own_url: object, overrides: Mapping[str, Any], environment: Mapping[str, str]) -> bool:
    """Return True if an argument or the environment sets the URL of another server than that of a profile."""
    url = overrides.get("url", environment.get("url"))
    if url is None or own_url is None:
        return False
    try:
        return not isinstance(own_url, str) or origin(str(url)) != origin(own_url)
    except ConfigError:  # The URL of the profile is not valid.
        return True


def check_url(url: Any, source: str) -> None:
    """Check the URL of a service, if there is one.

    Raises:
        ConfigError: It is not valid. The message has the source and the fix.
    """
    if not isinstance(url, str | None):
        raise ConfigError(f"{source} must be a str, not {type(url).__name__}")
    try:
        if url is not None:
            parse_service_url(url, source)
    except ValueError as error:
        raise ConfigError(str(error)) from None


def _apply(profile: Profile, environment: Mapping[str, str], overrides: Mapping[str, Any]) -> None:
    """Replace fields of a profile by environment variables and arguments. Tables are merged.

    Raises:
        ConfigError: A value is invalid.
    """
    for name, text in environment.items():
        setattr(profile, name, _parse_variable(name, text))
    for name in Profile.__struct_fields__:
        if name not in overrides:
            continue
        current, value = getattr(profile, name), overrides[name]
        if isinstance(current, dict):
            if not isinstance(value, Mapping):
                raise ConfigError(f"{name} must be a dict, not {type(value).__name__}")
            value = merge_option(name, current, value)
        setattr(profile, name, value)
    if "oauth" in overrides:
        _apply_oauth(profile, overrides)


def _apply_oauth(profile: Profile, overrides: Mapping[str, Any]) -> None:
    if "token" not in overrides:
        profile.token = None  # A token of the profile or the environment would be used instead of `oauth`.
    table = overrides["oauth"]
    if isinstance(table, Mapping):
        table = {key: plain_text(value) for key, value in table.items()}
    profile.oauth = convert(table, OAuth, "oauth")


def convert(table: Any, kind: type[StructT], source: str) -> StructT:
    """Convert a table of a configuration.

    Raises:
        ConfigError: It is invalid. The message has the source, and the keys or values that are valid.
    """
    _check_keys(table, kind, source, "")
    try:
        return msgspec.convert(table, kind)
    except msgspec.ValidationError as error:
        raise ConfigError(f"{source}: {error}") from None


def _check_keys(table: Any, kind: type[msgspec.Struct], source: str, prefix: str) -> None:
    """Check the keys of a table, and the values of those that have a list of valid ones.

    The errors of msgspec do not contain what is valid.
    """
    types = {info.name: info.type for info in msgspec.structs.fields(kind)}
    for name, value in table.items() if isinstance(table, Mapping) else ():
        if name not in types:
            close = get_close_matches(str(name), types)
            hint = f"did you mean {' or '.join(close)}?" if close else f"the keys are {', '.join(types)}"
            raise ConfigError(f"{source}: there is no key {prefix}{name}: {hint}")
        for option in (types[name], *get_args(types[name])):
            choices = get_args(option) if get_origin(option) is Literal else ()
            if choices and value is not None and value not in choices:
                expected = " or ".join(f'"{choice}"' for choice in choices)
                raise ConfigError(f"{source}: {prefix}{name} must be {expected}, not {value!r}")
            if isinstance(option, type) and issubclass(option, msgspec.Struct):
                _check_keys(value, option, source, f"{prefix}{name}.")


def profile_names(path: Path | None) -> list[str]:
    """Return the names of the profiles in a configuration file.

    Raises:
        ConfigError: The file cannot be read.
    """
    file = _read_file(path, _source_of_path(None))
    file.require_readable()
    return list(file.content.profiles)


def _variable(field_name: str) -> str:
    return f"HEKSHER_{field_name.upper()}"


def _parse_variable(field_name: str, text: str) -> Any:
    """Convert the value of an environment variable to the type of its field.

    Raises:
        ConfigError: The value is invalid.
    """
    type_ = next(info.type for info in msgspec.structs.fields(Profile) if info.name == field_name)
    value: Any = text
    if field_name == "context_features":
        value = [name.strip() for name in text.split(",") if name.strip()]
    try:
        return msgspec.convert(value, type_, strict=False)
    except msgspec.ValidationError:
        expected = next((words for kind, words in _EXPECTED_VALUES.items() if kind in get_args(type_)), "text")
        raise ConfigError(f"{_variable(field_name)} must be {expected}, not {text!r}") from None


def _source_of_path(given: str | PathLike[str] | None) -> str | None:
    """Return the name of the source that names the configuration file, or None if it is that of the platform."""
    return "path" if given is not None else "HEKSHER_CONFIG" if os.environ.get("HEKSHER_CONFIG") else None


def _read_file(path: Path | None, source: str | None) -> ConfigFile:
    """Read a configuration file.

    Args:
        path: Its path.
        source: The source that names the file; None if a program did not choose it, so that it need not exist.

    Raises:
        ConfigError: The file is invalid, or it is chosen and cannot be read.
    """
    if path is None:
        return ConfigFile()
    try:
        with path.open("rb") as stream:
            mode = os.fstat(stream.fileno()).st_mode
            content = stream.read(_MAX_FILE_BYTES + 1)
    except FileNotFoundError:
        if source is not None:
            raise ConfigError(f"{source}: the file {path} does not exist") from None
        return ConfigFile()
    except OSError as error:
        problem = f"the configuration file {path} cannot be read: {error.strerror}"
        if source is not None:
            raise ConfigError(problem) from None
        return ConfigFile(problem=problem)
    if len(content) > _MAX_FILE_BYTES:
        raise ConfigError(f"{path} is not a configuration file: it is larger than {_MAX_FILE_BYTES:,} bytes")
    file = parse_file(path, content)
    return ConfigFile(file, is_private(mode))


def is_private(mode: int) -> bool:
    """Return whether a file with this mode can be read by its owner only, as far as the platform has modes."""
    return sys.platform == "win32" or not mode & (stat.S_IRWXG | stat.S_IRWXO)


def parse_file(path: Path, content: bytes) -> FileContent:
    """Parse the content of a configuration file.

    Raises:
        ConfigError: It is invalid.
    """
    try:
        table = tomllib.loads(content.decode(json.detect_encoding(content)))  # Windows has several encodings.
    except ValueError as error:  # Invalid TOML or UTF-8, or an integer with more digits than Python converts.
        raise ConfigError(f"{path} is not valid TOML: {error}") from None
    except RecursionError:
        raise ConfigError(f"{path} is nested too deeply") from None
    file_format = table.get("format", _FORMAT)
    if not isinstance(file_format, int) or file_format < 1:
        raise ConfigError(f"{path}: format must be {_FORMAT}, not {file_format!r}")
    if file_format > _FORMAT:
        raise ConfigError(
            f"{path} has format {file_format}, and this version of heksher_client reads format {_FORMAT}: upgrade it"
        )
    return convert(table, FileContent, str(path))


def _choose_profile(file: ConfigFile, name: str | None, path: Path | None, *, has_url: bool) -> str | None:
    """Return the name of the profile to use, or None if none is needed.

    Args:
        file: The configuration file.
        name: The name that an argument or `HEKSHER_PROFILE` gives.
        path: The path of the file, for error messages.
        has_url: Another source sets the service URL, so that a profile is optional.

    Raises:
        ConfigError: The profile does not exist, or it is not clear which one to use, or the file is needed and cannot
            be read.
    """
    profiles, default = file.content.profiles, file.content.default_profile
    where = f"in {path}" if path else "in the configuration file (install the extra `profiles`, or set HEKSHER_CONFIG)"
    available = ", ".join(profiles) or "none"
    if name is not None:
        file.require_readable()
        if name not in profiles:
            raise ConfigError(f"there is no profile {name} {where}; available profiles: {available}")
        return name
    if isinstance(default, str) and default in profiles:
        return default
    if default is None and len(profiles) == 1:
        return next(iter(profiles))
    if has_url:
        return None
    if default is not None:
        raise ConfigError(f"the default profile {default} is not {where}; available profiles: {available}")
    file.require_readable()
    if profiles:
        raise ConfigError(
            f"there are several profiles {where}: name one, or set HEKSHER_PROFILE; available profiles: {available}"
        )
    raise ConfigError(f"no service URL is configured: set HEKSHER_URL, or add [profiles.NAME] with a url {where}")
