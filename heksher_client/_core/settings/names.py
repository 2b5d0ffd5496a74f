"""The patterns of names, which are the same in the client, the service and the command line."""

from typing import Final

CONTEXT_NAME: Final = "[a-zA-Z_0-9]+"
"""A context feature, or the value of one in a rule."""
SETTING_NAME: Final = "[a-zA-Z_0-9.]+"
METADATA_KEY: Final = "[a-zA-Z0-9_-]+"
