"""Threads, wakeups and forks: the only place that starts a thread or registers a fork hook."""
