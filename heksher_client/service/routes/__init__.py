"""The endpoints, a file for each kind of thing."""

from typing import Final

from heksher_client.service.routes import change_log, context_features, declarations, health, queries, rules, settings

_PARTS: Final = (health, context_features, declarations, settings, rules, queries, change_log)
ROUTERS: Final = tuple(part.router for part in _PARTS)
