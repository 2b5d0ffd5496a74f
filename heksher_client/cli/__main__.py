"""Run the command as `python -m heksher_client.cli`."""

from heksher_client.cli import main

if __name__ == "__main__":  # pragma: no cover - tests run it in other processes
    main()
