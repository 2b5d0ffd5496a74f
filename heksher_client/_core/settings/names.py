"""The patterns of names and versions, which are the same in the client, the service and the command line."""

from typing import Final

CONTEXT_NAME: Final = "[a-zA-Z_0-9]+"
"""A context feature. In the reference implementation also the value of one in a rule: see `context_values`."""
SETTING_NAME: Final = "[a-zA-Z_0-9.]+"
METADATA_KEY: Final = "[a-zA-Z0-9_-]+"
VERSION: Final = r"[0-9]+\.[0-9]+"
TOKEN_NAME: Final = "[a-zA-Z0-9_.@-]+"  # noqa: S105 - not a secret
