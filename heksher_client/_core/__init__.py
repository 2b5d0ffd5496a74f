"""The core: all decisions, without I/O, event loop or clock."""
