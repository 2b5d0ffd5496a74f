"""The clients, which drive the flows of the core: they perform its effects, in an asyncio task or in a thread."""
