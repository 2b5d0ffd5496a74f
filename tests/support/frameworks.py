"""The packages of the dependency group `frameworks`. They may be missing: they are a third of all packages."""

NOT_INSTALLED = "pip install --group frameworks"
"""The reason why a test is skipped."""
