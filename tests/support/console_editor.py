"""An operator who edits rules in the console, in a browser without scripts."""

from typing import Any
from urllib.parse import urlencode

import httpx

from heksher_client.service import store
from heksher_client.service.console.pages.confirmation import selected_value
from heksher_client.service.store import StoredRule
from tests.support.console import Browser
from tests.support.html_forms import parsed, submission
from tests.support.service import WatchedService

SETTING = "/console/settings/s"


class Editor(Browser):
    """An operator who presses buttons and follows links of the page that is shown."""

    def press(self, button: str, *, action: str | None = None, **entered: Any) -> httpx.Response:
        """Press a button after something was entered into inputs. Dots in names are written as `__`."""
        named = {name.replace("__", "."): value for name, value in entered.items()}
        sent = submission(self.response.text, button, action, **named)
        address = str(self.response.url.join(sent.action))
        if sent.method == "get":
            return self.go(f"{address}?{urlencode(sent.fields, doseq=True)}")
        return self._show(self.http.post(address, data=sent.fields))

    def follow(self, link: str) -> httpx.Response:
        return self.go(str(self.response.url.join(parsed(self.response.text).links[link])))

    def field(self, name: str) -> list[str]:
        """Return what the inputs of a name contain, in the first form that has them."""
        return next(form.fields[name] for form in parsed(self.response.text).forms if name in form.fields)

    def _show(self, response: httpx.Response) -> httpx.Response:
        self.response = response
        return super()._show(response)


def rules(service: WatchedService, setting: str = "s") -> dict[str, Any]:
    """Return the values of the rules in effect, by their conditions."""
    found = service.call("GET", "/api/v1/query").json()["settings"][setting]["rules"]
    return {",".join("=".join(pair) for pair in rule["context_features"]): rule["value"] for rule in found}


def log(service: WatchedService) -> list[dict[str, Any]]:
    """Return the changes, the last one first."""
    changes: list[dict[str, Any]] = service.call("GET", "/api/v1/change_log?limit=1000").json()["changes"]
    return changes[::-1]


def stored_rule(service: WatchedService, rule_id: int) -> StoredRule:
    assert service.database is not None
    with service.database.begin(writes=False) as connection:
        found = store.rule(connection, rule_id)
    assert found is not None
    return found


def set_metadata(service: WatchedService, path: str, **metadata: Any) -> None:
    body: dict[str, Any] = {"metadata": metadata}
    if path.startswith("settings"):
        body["version"] = "1.1"
    service.call("PUT", f"/api/v1/{path}/metadata", body)


def selection(service: WatchedService, *rule_ids: int) -> str:
    """Return the address to which the checkboxes of rules lead."""
    chosen = [("rule", selected_value(stored_rule(service, rule_id))) for rule_id in rule_ids]
    return f"{SETTING}/rules/selected?" + urlencode([*chosen, ("back", f"{SETTING}?find=jim")])
