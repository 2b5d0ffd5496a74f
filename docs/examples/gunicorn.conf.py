"""gunicorn: `gunicorn --config gunicorn.conf.py flask_app:app`.

The client starts once, in the process that loads the program, and goes on by itself
in each worker that is forked from it, which has all rules from the first request.
"""

preload_app = True
workers = 2
