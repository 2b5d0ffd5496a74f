"""Requests of administration: changes, and the arguments that become parts of a request."""

import json
import re
import sys
from collections.abc import Mapping
from typing import Any, Final, TypeAlias, TypeVar
from urllib.parse import quote

from heksher_client._core.refresh import protocol
from heksher_client._core.refresh.effects import Flow, Reply, Request
from heksher_client._core.refresh.responses import parse_response, unexpected_response
from heksher_client._core.refresh.service_requests import ServiceRequests
from heksher_client._core.settings.context import check_feature_names
from heksher_client._core.settings.context_values import FILTER_CHARACTERS, escape_value, normalized_value
from heksher_client._core.settings.names import CONTEXT_NAME, METADATA_KEY, SETTING_NAME, VERSION
from heksher_client._core.settings.setting import Setting

T = TypeVar("T")
SettingOrName: TypeAlias = Setting[Any] | str
"""A setting that the program declares, or the name of any setting of the service, which may be an alias."""

API: Final = "/api/v1/"
_ETAG: Final = "[!-~]+"


class AdminRequests:
    """The requests of an admin client that change something."""

    def __init__(self, requests: ServiceRequests) -> None:
        """Create it for the requests of a client."""
        self._requests = requests

    def _change_setting(
        self, setting: SettingOrName, path: str, change: Mapping[str, Any], version: str, *, method: str = "PUT"
    ) -> Flow[None]:
        body = {**change, "version": checked_text(version, VERSION, "version", ": it must be like '1.0'")}
        return self._change(method, f"{setting_path(setting)}/{path}", body)

    def _change(self, method: str, path: str, body: Any = None, etag: str | None = None) -> Flow[None]:
        headers = {} if etag is None else {"If-Match": checked_text(etag, _ETAG, "etag")}
        request = Request(method, API + path, headers) if body is None else json_request(method, path, body, headers)

        def parse(reply: Reply) -> None:
            response = parse_response(request, reply)
            if not 200 <= response.status < 300:
                raise unexpected_response(request, response)

        return self._requests.send_once(request, parse)


def json_request(method: str, path: str, body: Any, headers: Mapping[str, str] | None = None) -> Request:
    try:
        content = json.dumps(body, allow_nan=False).encode()
    except (TypeError, ValueError) as error:
        remedy = "pass the Setting for a value of its type"
        raise TypeError(f"values and metadata must be JSON values ({error}): {remedy}") from None
    return Request(method, API + path, {"Content-Type": "application/json", **(headers or {})}, content)


def checked_type(value: T, kind: type[Any], what: str) -> T:
    """Return an argument.

    Raises:
        TypeError: It is of another type.
    """
    if not isinstance(value, kind):
        raise TypeError(f"{what} must be of type {kind.__name__}, not {type(value).__name__}")
    return value


def checked_text(text: str, pattern: str, what: str, hint: str = "") -> str:
    """Return a text that goes into the path, the query or a header of a request.

    Raises:
        TypeError: It is not a string.
        ValueError: It is not valid, so it might become another request.
    """
    if not re.fullmatch(pattern, checked_type(text, str, what)):
        raise ValueError(f"{text!r} is not a valid {what}{hint}")
    return text


def setting_name(setting: SettingOrName) -> str:
    name = setting.name if isinstance(setting, Setting) else setting
    return checked_text(name, SETTING_NAME, "setting name", ": use letters, digits, underscores and dots")


def json_value(setting: SettingOrName | None, value: Any) -> Any:
    """Return the value of a rule as a JSON value: that of a `Setting` is of its type, any other is one already."""
    if setting is not None:
        setting_name(setting)
    return setting.type.convert_to_heksher(value) if isinstance(setting, Setting) else value


def feature_name(name: str | None) -> str:
    (checked,) = check_feature_names([name or ""])
    return checked


def metadata_key(key: str) -> str:
    return checked_text(key, METADATA_KEY, "metadata key", ": use letters, digits, underscores and hyphens")


def setting_path(setting: SettingOrName) -> str:
    return protocol.setting(setting_name(setting)).target.removeprefix(API)


def checked_conditions(conditions: Mapping[str, str]) -> dict[str, str]:
    items = checked_type(conditions, Mapping, "conditions").items()
    return {feature: normalized_value(feature, value) for feature, value in items}


def conditions_query(conditions: Mapping[str, str], name: str = "conditions") -> str:
    """Return the parameter for rules with these conditions; empty if there are none, or no rule can have them."""
    if not conditions or not all(re.fullmatch(CONTEXT_NAME, feature) for feature in conditions):
        return ""
    text = ",".join(f"{feature}:{escape_value(value)}" for feature, value in conditions.items())
    return f"&{name}={quote(text, safe=FILTER_CHARACTERS)}"


def metadata_body(metadata: Mapping[str, Any]) -> dict[str, Any]:
    return {"metadata": dict(checked_type(metadata, Mapping, "metadata"))}


def page_end(limit: int | None, offset: int) -> int:
    """Return the index after the last one of a page.

    Raises:
        TypeError: An argument is not an integer.
        ValueError: An argument is too low.
    """
    if checked_type(offset, int, "offset") < 0:
        raise ValueError("offset must not be negative")
    if limit is None:
        return sys.maxsize
    if checked_type(limit, int, "limit") < 1:
        raise ValueError("limit must be at least 1")
    return offset + limit
