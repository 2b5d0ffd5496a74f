"""Everything that decides and nothing that waits: no I/O, no threads, no event loop, no clock of its own."""
