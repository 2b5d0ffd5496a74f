"""Declaring settings: which declarations need not be sent, sending the others, and what is said of the answers."""

import json
import logging
from collections.abc import Sequence
from typing import Any, Final

import orjson

from heksher_client._core.refresh import protocol
from heksher_client._core.refresh.effects import MAX_CONCURRENT_REQUESTS, Flow, Pause, Reply, Response, exchange
from heksher_client._core.refresh.protocol import DeclarationAnswer, SettingData
from heksher_client._core.settings.entry import Entry
from heksher_client._logging import logger
from heksher_client.exceptions import ServiceUnavailableError, UnexpectedResponseError

_RETRIES: Final = (0.1, 0.4)
"""Seconds before a declaration that was answered 500 is sent again: of several processes that declare a new setting at
the same moment, some get a 500, and find the setting up to date a moment later."""


def ask(due: int) -> Flow[dict[str, SettingData]]:
    """Ask which settings the service has, if that may spare declarations.

    Args:
        due: How many are to be declared. Where they can all be declared at once, that is no slower than to ask first.

    Returns:
        The settings of the service by name; none if it was not asked, or had no answer: then all are declared.
    """
    if due <= MAX_CONCURRENT_REQUESTS:
        return {}
    (reply,) = yield from exchange(protocol.SETTINGS)
    try:
        return protocol.parse_settings(reply)
    except (ServiceUnavailableError, UnexpectedResponseError) as error:
        logger.info("all settings are declared, as the service did not say which it has: %s", error)
        return {}


def is_settled(setting: Entry[Any], known: SettingData | None) -> bool:
    """Whether the service has a setting exactly as it is declared, so that it would answer "uptodate"."""
    if known is None:
        return False
    declaration = orjson.loads(setting.declaration.body)
    alias = declaration.pop("alias", None)
    held = {key: getattr(known, key) for key in declaration}
    return (alias is None or alias in known.aliases) and _canonical(declaration) == _canonical(held)


def _canonical(declaration: dict[str, Any]) -> str:
    """As text, because to Python 1, 1.0 and True are equal. The service has its own order of context features."""
    features = sorted(declaration["configurable_features"], key=str)
    return json.dumps({**declaration, "configurable_features": features}, sort_keys=True)


def send(declarations: Sequence[bytes]) -> Flow[list[Reply]]:
    """Send declarations, and those that lost a race once more.

    Returns:
        The last reply to each.
    """
    replies = list((yield from exchange(*map(protocol.declare, declarations))))
    for delay in _RETRIES:
        failed = [i for i, reply in enumerate(replies) if isinstance(reply, Response) and reply.status == 500]
        if not failed:
            break
        yield Pause(delay)
        again = yield from exchange(*(protocol.declare(declarations[i]) for i in failed))
        for i, reply in zip(failed, again, strict=True):
            replies[i] = reply
    return replies


def log(setting: Entry[Any], answer: DeclarationAnswer) -> None:
    """Note an answer that somebody should know of: a conflict is an error, an outdated version a warning or less."""
    extra = {
        "setting": setting.name,
        "outcome": answer.outcome,
        "differences": list(answer.differences),
        "declared_version": setting.declaration.version,
        "latest_version": answer.latest_version,
        "detail": answer.detail,
    }
    if answer.outcome in (protocol.REJECTED, protocol.MISMATCH, protocol.CONFLICT):
        logger.error(
            "the declaration of setting %s is in conflict with what the service has (%s): %s",
            setting.name,
            answer.outcome,
            answer.detail or list(answer.differences),
            extra=extra,
        )
    elif answer.outcome == protocol.OUTDATED:
        is_major = (answer.latest_version or "").partition(".")[0] != setting.declaration.version.partition(".")[0]
        logger.log(
            logging.WARNING if is_major else logging.INFO,
            "the declaration of setting %s is outdated: version %s, and the service has %s",
            setting.name,
            setting.declaration.version,
            answer.latest_version,
            extra=extra,
        )
