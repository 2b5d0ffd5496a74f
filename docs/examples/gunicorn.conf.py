"""gunicorn: `gunicorn --config gunicorn.conf.py flask_app:app`.

The client starts once, in the process that loads the program, and goes on by itself in each worker that is forked from
it: a worker has all rules from its first request on.
"""

preload_app = True
workers = 2
