"""The pages of the console, and the actions of their forms: a module for each subject."""

from pathlib import Path
from typing import Final

from starlette.staticfiles import StaticFiles

from heksher_client.service.console.pages import (
    changes,
    compare,
    features,
    login,
    new_setting,
    pasted_rules,
    rule_selections,
    rules,
    search,
    setting_edit,
    setting_list,
    settings,
    tokens,
)

_MODULES: Final = (
    setting_list,
    settings,
    setting_edit,
    new_setting,
    rules,
    rule_selections,
    pasted_rules,
    search,
    changes,
    compare,
    features,
    tokens,
    login,
)
ROUTERS: Final = tuple(module.router for module in _MODULES)
ASSETS: Final = StaticFiles(directory=Path(__file__).parents[1] / "assets")
