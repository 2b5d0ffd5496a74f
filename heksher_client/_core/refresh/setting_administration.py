"""Administration of context features and settings: the flows that read and change them."""

from collections.abc import Iterable, Mapping
from functools import partial
from typing import Any

from heksher_client._core.refresh import protocol
from heksher_client._core.refresh.admin_requests import (
    AdminRequests,
    SettingOrName,
    feature_name,
    json_request,
    metadata_body,
    metadata_key,
    setting_name,
    setting_path,
)
from heksher_client._core.refresh.admin_responses import parse_is_created
from heksher_client._core.refresh.effects import Flow
from heksher_client._core.refresh.protocol import SettingData
from heksher_client._core.settings.context import check_feature_names
from heksher_client._core.settings.types import setting_type


class SettingAdministration(AdminRequests):
    """The operations on context features and settings, as flows. They raise the errors of its requests."""

    # -- context features ----------------------------------------------------------------------------------------------

    def context_features(self) -> Flow[tuple[str, ...]]:
        return self._requests.send(protocol.CONTEXT_FEATURES, protocol.parse_context_features)

    def add_context_feature(self, name: str) -> Flow[None]:
        return self._change("POST", "context_features", {"context_feature": feature_name(name)})

    def move_context_feature(self, name: str, before: str | None, after: str | None) -> Flow[None]:
        if (before is None) == (after is None):
            raise TypeError("either before or after must be given")
        place = {"to_after": feature_name(after)} if before is None else {"to_before": feature_name(before)}
        return self._change("PATCH", f"context_features/{feature_name(name)}/index", place)

    def delete_context_feature(self, name: str) -> Flow[None]:
        return self._change("DELETE", f"context_features/{feature_name(name)}")

    # -- settings ------------------------------------------------------------------------------------------------------

    def settings(self) -> Flow[dict[str, SettingData]]:
        return self._requests.get_settings()

    def setting(self, setting: SettingOrName) -> Flow[SettingData | None]:
        request = protocol.setting(setting_name(setting))
        found = yield from self._requests.send(request, partial(protocol.parse_setting, request))
        if found is None:
            yield from self._check_service()
        return found

    def rename_setting(self, setting: SettingOrName, new_name: str, version: str) -> Flow[None]:
        return self._change_setting(setting, "name", {"name": setting_name(new_name)}, version)

    def set_setting_type(self, setting: SettingOrName, new_type: Any, version: str) -> Flow[None]:
        text = new_type if isinstance(new_type, str) else setting_type(new_type).heksher_string()
        return self._change_setting(setting, "type", {"type": text}, version)

    def set_configurable_features(self, setting: SettingOrName, features: Iterable[str], version: str) -> Flow[None]:
        new = {"configurable_features": check_feature_names(features)}
        return self._change_setting(setting, "configurable_features", new, version)

    def delete_setting(self, setting: SettingOrName) -> Flow[None]:
        return self._change("DELETE", setting_path(setting))

    def add_setting_metadata(self, setting: SettingOrName, metadata: Mapping[str, Any], version: str) -> Flow[None]:
        return self._change_setting(setting, "metadata", metadata_body(metadata), version, method="POST")

    def replace_setting_metadata(self, setting: SettingOrName, metadata: Mapping[str, Any], version: str) -> Flow[None]:
        return self._change_setting(setting, "metadata", metadata_body(metadata), version)

    def delete_setting_metadata(self, setting: SettingOrName, key: str, version: str) -> Flow[None]:
        return self._change_setting(setting, f"metadata/{metadata_key(key)}", {}, version, method="DELETE")

    def create_setting(
        self, name: str, type: Any, default_value: Any, features: Iterable[str], metadata: Mapping[str, Any]
    ) -> Flow[bool]:
        is_text = isinstance(type, str)
        body = {
            "name": setting_name(name),
            "type": type if is_text else setting_type(type).heksher_string(),
            "default_value": default_value if is_text else setting_type(type).convert_to_heksher(default_value),
            "configurable_features": check_feature_names(features),
            "version": "1.0",
            **metadata_body(metadata),
        }
        request = json_request("POST", "settings/declare", body)
        return self._requests.send_once(request, partial(parse_is_created, request))

    def add_alias(self, setting: SettingOrName, alias: str) -> Flow[None]:
        return self._change("PUT", _alias_path(setting, alias))

    def delete_alias(self, setting: SettingOrName, alias: str) -> Flow[None]:
        return self._change("DELETE", _alias_path(setting, alias))

    def _check_service(self) -> Flow[None]:
        """Raise an error if the server is not a Heksher service: that would respond with 404 to any path."""
        yield from self.context_features()


def _alias_path(setting: SettingOrName, alias: str) -> str:
    return f"{setting_path(setting)}/aliases/{setting_name(alias).replace('.', '%2E')}"
