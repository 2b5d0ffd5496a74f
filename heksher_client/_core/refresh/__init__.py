"""Refreshing the settings of a client: declarations, queries, the schedule, health, the last known good."""
