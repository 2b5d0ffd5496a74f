"""Validators of values, and a custom type."""

from datetime import timedelta

from heksher_client import (
    Conversion,
    Rule,
    Setting,
    SettingType,
    connect,
)

retries = Setting(
    "retries", type=int, configurable_features=["user"], default_value=3
)


@retries.add_validator
def at_least_one(value: int, rule: Rule[int] | None, setting: Setting[int]) -> int:
    if value > 100:
        raise ValueError("too many")  # the rule is not used, and is logged
    return max(value, 1)


class Seconds(SettingType[timedelta]):
    """A number in the service, a timedelta in the program."""

    def heksher_string(self) -> str:
        return "float"

    def convert_from_heksher(self, x: object) -> Conversion[timedelta]:
        if isinstance(x, bool) or not isinstance(x, int | float):
            raise TypeError(f"{x!r} is not a number of seconds")
        return Conversion(timedelta(seconds=x))

    def convert_to_heksher(self, x: timedelta) -> object:
        return x.total_seconds()


patience = Setting(
    "patience",
    type=Seconds(),
    configurable_features=["user"],
    default_value=timedelta(minutes=1),
)

with connect():
    print(retries.get(user="jim"), patience.get(user="jim"))
