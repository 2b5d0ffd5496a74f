"""gunicorn: `gunicorn --config gunicorn.conf.py flask_app:app`.

The client starts once, in the process that loads the program. It continues
in each forked worker, which has all rules from its first request.
"""

preload_app = True
workers = 2
