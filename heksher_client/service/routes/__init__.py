"""The endpoints of the API.

The examples in the OpenAPI document assume the context features `environment`, `user` and `theme`; the setting
`cache_size`, as `declarations` declares it; its rule 1, which was changed from 100 to 200, as `change_log` has it; then
its alias `cache_limit`; and the token `shop`.
"""

from typing import Final

from heksher_client.service.routes import (
    change_log,
    comparison,
    context_features,
    declarations,
    documents,
    health,
    queries,
    rule_lists,
    rule_metadata,
    rules,
    search,
    settings,
    tokens,
)

_MODULES: Final = (
    health,
    context_features,
    declarations,
    settings,
    rules,
    rule_metadata,
    rule_lists,
    search,
    comparison,
    queries,
    change_log,
    tokens,
    documents,
)
ROUTERS: Final = tuple(module.router for module in _MODULES)
