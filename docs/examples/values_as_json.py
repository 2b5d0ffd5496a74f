"""Convert values of settings to JSON, and copy them."""

import copy
import json
from collections.abc import Mapping
from enum import Enum

from heksher_client import Setting


class Theme(Enum):
    LIGHT = "light"
    DARK = "dark"


limits = Setting("limits", Mapping[str, int], ["user"], default_value={"cpu": 2})
themes = Setting(
    "themes", Mapping[str, Theme], ["user"], default_value={"shop": Theme.DARK}
)

value = limits.get(user="jim")
print(json.dumps(value), copy.deepcopy(value) == value)
print({**value, "memory": 4})  # a dict that can be changed

# Enums become their values, and flags lists of names:
print(json.dumps(themes.type.convert_to_heksher(themes.get(user="jim"))))
