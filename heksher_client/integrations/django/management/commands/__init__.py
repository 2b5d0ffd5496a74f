"""The commands: `manage.py heksher`."""
