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
retries = Setting("retries", int, by_user, default_value=3)
timeout = Setting("timeout", float, by_user, default_value=2.5)
greeting = Setting("greeting", str, by_user, default_value="Hello")
is_beta = Setting("is_beta", bool, by_user, default_value=False)
theme = Setting("theme", Theme, by_user, default_value=Theme.LIGHT)
options = Setting("options", Option, by_user, default_value=Option.SAFE)
hosts = Setting("hosts", Sequence[str], by_user, default_value=("a", "b"))
limits = Setting("limits", Mapping[str, int], by_user, default_value={"cpu": 2})

for setting in (retries, timeout, greeting, is_beta, theme, options, hosts, limits):
    value = setting.get(user="jim")
    print(f"{setting.name}: {setting.type.heksher_string()} = {value!r}")
