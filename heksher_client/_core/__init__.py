"""Everything that is decided: no I/O, no event loop, no clock of its own."""
