"""Management commands. Django requires the name of this package."""
