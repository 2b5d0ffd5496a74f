"""What a client can be made with: as arguments, as keywords of a subclass, or in a profile."""

import os
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, Final, TypeAlias, TypedDict

from heksher_client.exceptions import UnexpectedResponseError

if TYPE_CHECKING:  # stubs take these options as well, and need no HTTP library
    import httpx

    from heksher_client.credentials import Credential

AuthTypes: TypeAlias = "Credential | httpx.Auth | tuple[str, str] | Callable[[Any], Any] | None"
"""A credential of `heksher_client.credentials`, or whatever the HTTP client takes: a pair of user name and password,
say."""


class ClientOptions(TypedDict, total=False):
    """The choices that a program has and need not make. All times are in seconds; None is as good as nothing.

    Where both a class and its caller choose, the caller wins; dicts are merged, key by key.
    """

    headers: Mapping[str, str] | None
    """Sent with each request."""
    cookies: Mapping[str, str] | None
    """Sent with each request."""
    params: Mapping[str, str] | None
    """Query parameters that are sent with each request. No place for secrets: httpx logs URLs, at the level INFO."""
    user_agent: str | None
    """Instead of `heksher-client/` and the version."""
    auth: AuthTypes
    """What shows that the program may ask. `use_credential` replaces it in a client that runs."""
    timeout: "float | httpx.Timeout | None"
    """For the single steps of a request: to connect, to send, to wait for the next byte. 5 unless given."""
    http_client: Any
    """An `httpx.Client` (for the thread client; it must bear several threads) or `httpx.AsyncClient`, or what behaves
    as one. It is shared: the program closes it. Its own headers, cookies, parameters and time-outs are kept."""
    http_client_args: Mapping[str, Any] | None
    """Without `http_client`: arguments for the httpx client to be made, such as verify, proxy or transport. The thread
    client sends requests from several threads at once, so what a program hands in must bear that."""
    error_classes: Mapping[int, type[UnexpectedResponseError]] | None
    """By HTTP status, the class of the errors for such answers: a subclass of `UnexpectedResponseError`."""
    rate_limit: int | None
    """The most requests that the client sends in each `rate_limit_interval`, whoever asks for them. More of them wait.
    Without it there is no limit."""
    rate_limit_interval: float | None
    """1 unless given."""
    start_timeout: float | None
    """The longest that all requests of the first refresh may take together. 60 unless given."""
    request_timeout: float | None
    """The longest that a request may take, from looking the service up to the last byte. 30 unless given."""
    max_response_bytes: int | None
    """The most that is accepted of one answer, inflated. A query that brings more is split. 256 MiB unless given."""
    jitter: float | None
    """The share of the interval by which each is longer or shorter, from 0 to 1, so that the processes of a fleet do
    not all ask at the same moment. 0.1 unless given. Unless it is 0, the first interval ends at any moment of it, and
    waits after failures are up to a half shorter."""
    max_backoff: float | None
    """The longest wait after failures. They begin with one second, and double. 60 unless given."""
    stale_after: float | None
    """The age from which `status()` calls the settings stale. Three intervals unless given."""
    last_known_good: str | os.PathLike[str] | None
    """A file to keep what was last received in. A start without the service serves from it, if it was confirmed within
    `max_age`. Its folder must exist. Several processes may share it."""
    max_age: float | None
    """The age from which that file is not used any more. A week unless given."""
    follow_changes: bool | None
    """Whether to hear of changes as they are made, where the service offers that: over one more connection, which stays
    open. Refreshes at intervals go on beside it. True unless given, but for HTTP clients that allow one connection
    only, have hooks for responses, or ask an application in this process, which a stream would never come out of."""


class ClassOptions(ClientOptions, total=False):
    """What a subclass can choose for all its clients: `class ShopClient(ThreadHeksherClient, service_url=...)`."""

    service_url: str | None
    update_interval: float | None
    context_features: Sequence[str] | None


_MERGED: Final = (
    "headers", "cookies", "params", "http_client_args", "error_classes", "defaults", "track_contexts"
)  # fmt: skip
"""Those that are dicts, of which the caller's add to those of the class, or of the profile."""


def check_names(options: Mapping[str, Any], kind: type[Any], whose: str) -> None:
    """Refuse what is no option.

    Raises:
        TypeError: With its name.
    """
    for name in options:
        if name not in kind.__optional_keys__:
            raise TypeError(f"{whose} got an unexpected keyword argument {name!r}")


_INSTEAD: Final = {"http_client": "http_client_args", "http_client_args": "http_client"}
"""Those of which a client can have but one: whoever chooses one does without the other."""


def merged(less: Mapping[str, Any], more: Mapping[str, Any]) -> dict[str, Any]:
    """Options of two sources, of which the second one wins.

    Raises:
        TypeError: What should be a dict is none.
    """
    chosen = _in_place(more)
    options = {name: value for name, value in less.items() if _INSTEAD.get(name) not in chosen}
    for name, value in chosen.items():
        options[name] = merged_tables(name, options.get(name, {}), value) if name in _MERGED else value
    return options


def merged_tables(name: str, less: Mapping[str, Any], more: Mapping[str, Any]) -> dict[str, Any]:
    """What two sources have for an option that is a dict. The names of headers have no case."""
    if name != "headers":
        return {**less, **more}
    replaced = {str(key).lower() for key in more}
    return {key: value for key, value in less.items() if str(key).lower() not in replaced} | dict(more)


def _is_plain(value: Any) -> bool:
    """Whether it is a dict of texts: what else httpx takes there is httpx's, and may have a life, as cookie jars do."""
    return type(value) is dict and all(isinstance(text, str) for pair in value.items() for text in pair)


def _take_out(chosen: dict[str, Any]) -> None:
    """Have what is an option of a client as well be one, wherever a source has put it: else a weaker one would win."""
    arguments = dict(chosen.get("http_client_args", {}))
    for name in ("headers", "cookies", "params"):
        if _is_plain(arguments.get(name)):
            chosen[name] = merged_tables(name, arguments.pop(name), chosen.get(name, {}))
    if arguments.get("timeout") is not None:
        timeout = arguments.pop("timeout")
        chosen.setdefault("timeout", timeout)
    if "http_client_args" in chosen:
        chosen["http_client_args"] = arguments


def _in_place(options: Mapping[str, Any]) -> dict[str, Any]:
    """What a source has chosen; what may be given in two places in the one where it is looked for.

    Raises:
        TypeError: What should be a dict is none.
    """
    chosen = {name: value for name, value in options.items() if value is not None}
    for name in _MERGED:
        if not isinstance(chosen.get(name, {}), Mapping):
            raise TypeError(f"{name} must be a dict, not {type(chosen[name]).__name__}")
    _take_out(chosen)
    for name, table, inner in (("auth", "http_client_args", "auth"), ("user_agent", "headers", "user-agent")):
        there = chosen.pop(table, {})
        meant = [value for key, value in there.items() if str(key).lower() == inner and value is not None]
        if meant:
            chosen.setdefault(name, meant[-1])
        if left := {key: value for key, value in there.items() if str(key).lower() != inner}:
            chosen[table] = left
    return chosen
