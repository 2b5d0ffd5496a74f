"""The pages of the console, and the actions of their forms: a module for each subject."""

from pathlib import Path
from typing import Final

from starlette.staticfiles import StaticFiles

from heksher_client.service.console.pages import changes, login, rules, setting_list, settings

ROUTERS: Final = tuple(module.router for module in (setting_list, settings, rules, changes, login))
ASSETS: Final = StaticFiles(directory=Path(__file__).parents[1] / "assets")
