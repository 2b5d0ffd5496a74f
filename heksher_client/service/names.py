"""The patterns of names, which are the same in bodies, paths, filters and the arguments of `create_app`."""

from typing import Final

CONTEXT_NAME: Final = "[a-zA-Z_0-9]+"
"""A context feature, or the value of one in a rule."""
SETTING_NAME: Final = "[a-zA-Z_0-9.]+"
