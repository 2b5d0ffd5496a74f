"""Settings of all types."""

from collections.abc import Mapping, Sequence
from enum import Enum, IntFlag, auto

from heksher_client import Setting


class Theme(Enum):
    LIGHT = "light"
    DARK = "dark"


class Option(IntFlag):
    FAST = auto()
    SAFE = auto()


by_user = ["user"]
retries = Setting("retries", type=int, configurable_features=by_user, default_value=3)
timeout = Setting("timeout", type=float, configurable_features=by_user, default_value=2.5)
greeting = Setting("greeting", type=str, configurable_features=by_user, default_value="Hello")
is_beta = Setting("is_beta", type=bool, configurable_features=by_user, default_value=False)
theme = Setting("theme", type=Theme, configurable_features=by_user, default_value=Theme.LIGHT)
options = Setting("options", type=Option, configurable_features=by_user, default_value=Option.SAFE)
hosts = Setting("hosts", type=Sequence[str], configurable_features=by_user, default_value=("a", "b"))
limits = Setting("limits", type=Mapping[str, int], configurable_features=by_user, default_value={"cpu": 2})

for setting in (retries, timeout, greeting, is_beta, theme, options, hosts, limits):
    print(f"{setting.name}: {setting.type.heksher_string()} = {setting.get(user='jim')!r}")
