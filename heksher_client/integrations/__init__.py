"""Web frameworks and task queues: each request or task supplies the context values of its reads.

Each module requires only its framework; `asgi` and `wsgi` require nothing.
"""
