"""The declaration of a setting: its checks, and the form in which the service receives it."""

import json
import re
from collections.abc import Mapping, Sequence
from typing import Any, Final, Generic, TypeVar

import msgspec
import orjson

from heksher_client._core.settings.context import check_feature_names
from heksher_client._core.settings.frozen_dict import FrozenDict
from heksher_client._core.settings.names import METADATA_KEY, SETTING_NAME, VERSION
from heksher_client._core.settings.types import SettingType, convert, setting_type
from heksher_client._core.settings.user_functions import plain_result

T = TypeVar("T")

_SETTING_NAME: Final = re.compile(SETTING_NAME)
_METADATA_KEY: Final = re.compile(METADATA_KEY)
_VERSION: Final = re.compile(VERSION)


class Declaration(msgspec.Struct, Generic[T], frozen=True):
    """The declaration of one setting. Immutable."""

    name: str
    type: SettingType[T]
    configurable_features: tuple[str, ...]
    default_value: T
    """Converted to the type, and immutable."""
    metadata: Mapping[str, Any]
    alias: str | None
    version: str
    body: bytes
    """The JSON body of the request that declares the setting."""


def declare(
    name: str,
    type: Any,
    configurable_features: Sequence[str],
    default_value: Any,
    metadata: Mapping[str, Any] | None,
    alias: str | None,
    version: str,
) -> Declaration[Any]:
    """Check the arguments of a setting, and return its declaration.

    Raises:
        ValueError: A name, a version or a key that the service would refuse.
        TypeError: An unknown type, a default that is not of the type, or a value without a JSON form.
    """
    _check_name(name, "name")
    if alias is not None:
        _check_name(alias, "alias")
    if alias == name:
        raise ValueError(f"setting {name}: the alias must differ from the name")
    checked_type = setting_type(type)
    features = check_feature_names(configurable_features)
    if not features:
        raise ValueError(f"setting {name}: it must have at least one configurable feature")
    if not isinstance(version, str) or not _VERSION.fullmatch(version):
        raise ValueError(f"setting {name}: the version must be like '1.0', not {version!r}")
    try:
        plain_metadata = _plain_metadata(metadata)
        wire_default = plain_result(checked_type.convert_to_heksher, checked_type.convert_to_heksher(default_value))
        default = convert(checked_type, wire_default).value
        wire_form = {
            "name": name,
            "type": plain_result(checked_type.heksher_string, checked_type.heksher_string()),
            "default_value": wire_default,
            "configurable_features": features,
            "metadata": plain_metadata,
            "version": version,
        }
        # A copy: what orjson returns keeps its buffer of several kilobytes.
        body = bytes(bytearray(orjson.dumps(wire_form if alias is None else wire_form | {"alias": alias})))
    except TypeError as error:
        raise TypeError(f"setting {name}: {error}") from None
    except ValueError as error:
        raise ValueError(f"setting {name}: {error}") from None
    return Declaration(name, checked_type, features, default, FrozenDict(plain_metadata), alias, version, body)


def _plain_metadata(metadata: Mapping[str, Any] | None) -> dict[str, Any]:
    if not isinstance(metadata, Mapping | None):
        raise TypeError(f"metadata must be a dict of values by key, not {metadata!r}")
    plain = dict(metadata or {})
    for key in plain:
        if not isinstance(key, str) or not _METADATA_KEY.fullmatch(key):
            raise ValueError(f"{key!r} is not a valid metadata key: use letters, digits, _ and -")
    if plain:  # The check takes longer than the others, and most settings have none.
        json.dumps(plain, allow_nan=False)  # Stricter than orjson, which converts NaN to null, and dates to strings.
    return plain


def _check_name(name: str, kind: str) -> None:
    if not isinstance(name, str) or not _SETTING_NAME.fullmatch(name):
        raise ValueError(f"{name!r} is not a valid {kind} of a setting: use letters, digits, underscores and dots")
