"""The clients: they perform the effects of the core in an asyncio task or in a thread."""
