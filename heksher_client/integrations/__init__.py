"""Web frameworks and task queues: where the context of a read comes from, and who starts the client.

None of these modules needs more than its framework; `asgi` and `wsgi` need nothing.
"""
