"""How a client keeps settings up to date: declarations, queries, the schedule, health, the last known good."""
