"""The service for clients that are driven by hand: what programs request of it, in memory and without HTTP.

A test compares its responses with those of the local service. What operators change has methods instead of requests.
Requests may arrive from several threads, so all methods lock the state.
"""

import hashlib
import json
import re
import threading
from collections.abc import Callable, Iterable, Mapping, Sequence
from copy import deepcopy
from dataclasses import dataclass, field, replace
from secrets import token_hex
from typing import Any
from urllib.parse import parse_qs, unquote, urlsplit

from msgspec import structs

from heksher_client._core.refresh.effects import NoResponse, Oversized, Reply, Request, Response
from heksher_client.service.context_filters import admits, parse_context_filters
from heksher_client.service.declarations import Declaration, ExistingRules, compare
from heksher_client.service.setting_types import parse_setting_type
from tests.support.clients import FEATURES
from tests.support.service import CannedResponse, RecordedRequest, RequestRecorder

EVENT_STREAM = "text/event-stream"
UNREACHABLE = NoResponse(ConnectionError("connection refused"), is_network_error=True)


@dataclass
class FakeRule:
    """A rule of a setting."""

    value: Any
    conditions: Mapping[str, str]


@dataclass
class FakeSetting:
    """A setting in the service, with its rules by id."""

    declaration: Declaration
    aliases: list[str] = field(default_factory=list)
    rules: dict[int, FakeRule] = field(default_factory=dict)

    def as_json(self, order: Sequence[str]) -> dict[str, Any]:
        declared = self.declaration
        return {
            "name": declared.name,
            "configurable_features": sorted(declared.configurable_features, key=order.index),
            "type": str(declared.type),
            "default_value": declared.default_value,
            "metadata": dict(declared.metadata),
            "aliases": sorted(self.aliases),
            "version": declared.version,
        }


class FakeService(RequestRecorder[CannedResponse | Reply]):
    """A service without settings."""

    def __init__(self, features: Iterable[str] = FEATURES) -> None:
        super().__init__()
        self.features = list(features)
        self.settings: dict[str, FakeSetting] = {}
        """By canonical name."""
        self.revision = 0
        self.database = token_hex(8)
        """The identity of the database; empty if the service sends its revision only."""
        self.epochs = [(1, 0)]
        """The epochs, and the revisions at which they began."""
        self.is_running = True
        self.offers_changes = False
        """True to announce the change stream to clients. The reference service does not have one."""
        self.accepts_any_value = False
        """True to announce that filters may contain any value. The reference service refuses them."""
        self.announce: Callable[[bytes], None] = lambda event: None
        """Receives the events of the change stream, if one is open."""
        self.replica: FakeService | None = None
        """Responds to every second request that only reads, as behind a load balancer. It has a former state."""
        self._is_turn_of_replica = False
        self._last_rule = 0
        self._changes: list[bytes] = []
        self._lock = threading.RLock()

    # -- what operators change -----------------------------------------------------------------------------------------

    def declare(self, name: str, type_: str, default: Any, features: list[str], **more: Any) -> None:
        body = {"name": name, "type": type_, "default_value": default, "configurable_features": features, **more}
        with self._lock:
            assert self._declare(body).status == 200

    def add_rule(self, setting: str, value: Any, **conditions: str) -> int:
        with self._lock:
            self._last_rule += 1
            self.setting(setting).rules[self._last_rule] = FakeRule(value, conditions)
            self._changed(setting)
            return self._last_rule

    def change_rule(self, rule_id: int, value: Any) -> None:
        with self._lock:
            for name, setting in self.settings.items():
                if rule_id in setting.rules:
                    setting.rules[rule_id].value = value
                    self._changed(name)
                    return

    def delete_rule(self, rule_id: int) -> None:
        with self._lock:
            for name, setting in self.settings.items():
                if setting.rules.pop(rule_id, None):
                    self._changed(name)
                    return

    def rename(self, name: str, new_name: str, version: str) -> None:
        with self._lock:
            setting = self.setting(name)
            self._rename(setting, replace(setting.declaration, name=new_name, version=version))

    def delete(self, name: str) -> None:
        with self._lock:
            del self.settings[self.setting(name).declaration.name]
            self._changed(name)

    def move_feature(self, feature: str, to_after: str) -> None:
        with self._lock:
            self.features.remove(feature)
            self.features.insert(self.features.index(to_after) + 1, feature)
            self._changed()

    def empty(self) -> None:
        """Delete everything but the context features."""
        with self._lock:
            self.settings.clear()
            self._changed()

    def replace_database(self) -> None:
        """Continue with an empty database, whose revisions begin again."""
        with self._lock:
            self.settings.clear()
            self._changes.clear()
            self.revision = 0
            self.database = self.database and token_hex(8)

    def snapshot(self) -> "FakeService":
        """Return a copy, as a backup has it, or a replica that lags."""
        copied = FakeService(self.features)
        with self._lock:
            copied.settings = deepcopy(self.settings)
            copied.revision, copied.database, copied.epochs = self.revision, self.database, list(self.epochs)
            copied.offers_changes, copied._last_rule = self.offers_changes, self._last_rule
            copied._changes = list(self._changes)
        return copied

    def restore(self, backup: "FakeService") -> None:
        """Restore the database from a backup. The service is started again, which begins a new epoch."""
        with self._lock:
            last, _ = self.epochs[-1]
            self.features, self.settings = list(backup.features), deepcopy(backup.settings)
            self.revision, self.database = backup.revision, backup.database
            self.epochs, self._changes = list(backup.epochs), list(backup._changes)
            self.restart(last)

    def restart(self, last: int = 0) -> None:
        """Begin a new epoch, as a service does when it is started."""
        with self._lock:
            self.epochs.append((max(last, self.epochs[-1][0]) + 1, self.revision))

    @property
    def label(self) -> str:
        """The identity of the database and the epoch, as in the header."""
        return f"{self.database}.{self.epochs[-1][0]}"

    def setting(self, name: str) -> FakeSetting:
        """Return a setting by its name or an alias."""
        with self._lock:
            found = self._find(name)
        assert found is not None, name
        return found

    def _find(self, name: str) -> FakeSetting | None:
        return next((one for one in self.settings.values() if name in (one.declaration.name, *one.aliases)), None)

    def _rename(self, setting: FakeSetting, declaration: Declaration) -> None:
        former, setting.declaration = setting.declaration.name, declaration
        if former != declaration.name:
            del self.settings[former]
            setting.aliases = [*(alias for alias in setting.aliases if alias != declaration.name), former]
        self.settings[declaration.name] = setting
        self._changed(former, declaration.name)

    def change_another_setting(self) -> None:
        """Change a setting of another program."""
        self._changed("other")

    def _changed(self, *settings: str) -> None:
        """Announce a change of some settings, or of all of them."""
        self.revision += 1
        data = json.dumps({"settings": settings, "all": not settings, "within": 0.0, "database": self.label})
        self._changes.append(f"event: change\ndata: {data}\nid: {self.revision}\n\n".encode())
        self.announce(self._changes[-1])

    # -- what programs request -----------------------------------------------------------------------------------------

    def respond(self, request: Request, max_bytes: int = 1 << 62) -> Reply:
        """Record a request, and respond to it, with a body that has at most this size."""
        parts = urlsplit(request.target)
        query = {name: values[0] for name, values in parse_qs(parts.query, keep_blank_values=True).items()}
        headers = {name.lower(): value for name, value in request.headers.items()}
        recorded = RecordedRequest(request.method, unquote(parts.path), query, headers, request.content or b"")
        self.requests.append(recorded)
        reply = self.intercept(recorded) if self.is_running else UNREACHABLE
        if isinstance(reply, CannedResponse):
            reply = Response(reply.status, reply.body, {name.lower(): value for name, value in reply.headers.items()})
        if reply is None:
            with self._lock:
                reply = self._next_replica(recorded)._respond(recorded)
        if isinstance(reply, Response) and len(reply.content) > max_bytes:
            return Oversized(reply.status, max_bytes)
        return reply

    def _next_replica(self, request: RecordedRequest) -> "FakeService":
        """Return the service, or the replica if it is its turn."""
        if self.replica is None or request.method != "GET" or request.path == "/api/v1/changes":
            return self
        self._is_turn_of_replica = not self._is_turn_of_replica
        return self.replica if self._is_turn_of_replica else self

    def _respond(self, request: RecordedRequest) -> Response:
        match str(request).removeprefix("GET /api/"):
            case "health":
                return self._json({"version": "0.5.7"})
            case "v1/context_features":
                return self._json({"context_features": self.features})
            case "POST /api/v1/settings/declare":
                return self._declare(request.json)
            case "v1/query":
                return self._query(request)
            case "v1/settings":
                return self._json(
                    {"settings": [self.settings[name].as_json(self.features) for name in sorted(self.settings)]}
                )
            case "v1/changes" if self.offers_changes:
                events = self._events_after(
                    request.headers.get("last-event-id"), request.headers.get("heksher-database")
                )
                return Response(200, events, {"content-type": EVENT_STREAM})
            case "v1/changes":
                return Response(404)
            case path:
                setting = self._find(path.removeprefix("v1/settings/"))
                return (
                    self._json(setting.as_json(self.features)) if setting else self._text(404, "setting does not exist")
                )

    def _json(self, value: Any, status: int = 200, **headers: str) -> Response:
        return Response(status, json.dumps(value).encode(), self._headers() | headers)

    def _text(self, status: int, text: str) -> Response:
        return Response(status, text.encode(), self._headers())

    def _headers(self) -> dict[str, str]:
        return self._position() | ({"heksher-context-values": "any"} if self.accepts_any_value else {})

    def _position(self) -> dict[str, str]:
        if not self.offers_changes:
            return {}
        label = {"heksher-database": self.label} if self.database else {}
        return {"heksher-revision": str(self.revision)} | label

    def _declare(self, body: Mapping[str, Any]) -> Response:
        declared = Declaration(
            body["name"],
            tuple(body["configurable_features"]),
            parse_setting_type(body["type"]),
            body["default_value"],
            body.get("metadata", {}),
            body.get("version", "1.0"),
        )
        stored, alias = self._find(declared.name), body.get("alias")
        if alias is not None:
            aliased = self._find(alias)
            if aliased is None:
                return self._json({"detail": f"alias {alias} does not exist"}, 404)
            name = aliased.declaration.name
            if aliased is not stored and (stored or name != alias):
                return self._json({"detail": f"alias {alias} is an alias of unrelated setting {name}"}, 409)
            stored = aliased
        return self._upgrade(stored, declared, alias) if stored else self._create(declared)

    def _create(self, declared: Declaration) -> Response:
        if declared.version != "1.0":
            return self._text(400, "newly created settings must have version 1.0")
        if unknown := set(declared.configurable_features) - set(self.features):
            return self._text(404, f"{unknown} are not acceptable context features")
        self.settings[declared.name] = FakeSetting(declared)
        self._changed(declared.name)
        return self._json({"outcome": "created"})

    def _upgrade(self, stored: FakeSetting, declared: Declaration, alias: str | None) -> Response:
        is_current = declared.version_number >= stored.declaration.version_number
        if is_current and alias != stored.declaration.name:
            declared = replace(declared, name=stored.declaration.name)
        ids = {f: [i for i, rule in stored.rules.items() if f in rule.conditions] for f in self.features}
        rules = ExistingRules(ids, {i: rule.value for i, rule in stored.rules.items()})
        features = sorted(stored.declaration.configurable_features, key=self.features.index)
        result = compare(declared, replace(stored.declaration, configurable_features=tuple(features)), lambda: rules)
        if result.outcome == "upgraded":
            self._rename(stored, declared)
        return self._json({"outcome": result.outcome} | result.details, 409 if result.is_conflict else 200)

    def _query(self, request: RecordedRequest) -> Response:
        names = request.query["settings"].split(",")
        found = {name: self._find(name) for name in names}
        if unknown := sorted(name for name, setting in found.items() if setting is None):
            return self._text(404, f"the following are not setting names: {unknown}")
        context_filters = request.query["context_filters"]
        if not self.accepts_any_value and not re.fullmatch(r"[\w:(),*]*", context_filters, re.ASCII):
            return self._json({"detail": "string does not match regex"}, 422)
        filters = parse_context_filters(context_filters)
        settings = {}
        for setting in filter(None, found.values()):
            rules = [
                {"value": rule.value, "context_features": conditions, "rule_id": rule_id}
                for rule_id, rule in setting.rules.items()
                if admits(
                    filters, conditions := [(f, rule.conditions[f]) for f in self.features if f in rule.conditions]
                )
            ]
            settings[setting.declaration.name] = {"default_value": setting.declaration.default_value, "rules": rules}
        response = self._json({"settings": dict(sorted(settings.items()))})
        etag = f'"{hashlib.sha256(response.content).hexdigest()}"'
        if request.headers.get("if-none-match") == etag:
            return Response(304, headers={**response.headers, "etag": etag})
        return structs.replace(response, headers={**response.headers, "etag": etag})

    def _events_after(self, revision: str | None, label: str | None) -> bytes:
        """Return the beginning of a change stream: the events after a revision, or of a service that was replaced."""
        if revision is not None and not self._is_known(int(revision), label):
            data = json.dumps({"database": self.label})
            return f"event: reset\ndata: {data}\nid: {self.revision}\n\n".encode()
        return b": ping\n\n" + b"".join(self._changes[int(revision or self.revision) :])

    def _is_known(self, revision: int, label: str | None) -> bool:
        if label is None:
            return revision <= self.revision
        database, _, epoch = label.partition(".")
        later = [began_at for number, began_at in self.epochs if number > int(epoch)]
        is_listed = int(epoch) in dict(self.epochs) or int(epoch) > self.epochs[-1][0]
        return database == self.database and is_listed and revision <= min(later, default=revision)
