"""The cost of settings, reads, refreshes, pauses, starts, polls and imports, as times and ratios to baselines.

`python -m benchmarks` measures everything, prints a table, and draws the plots of `docs/explanation/performance.md`.
Every figure is the median over fresh processes or over alternating rounds in one process. Each is compared with a
baseline, which no client can beat by much, and with the older client `heksher` 0.2.2, which is installed in an
environment of its own under `.cache`.
"""
