"""What the client costs: reads, refreshes, starts, polls and imports, as ratios measured side by side.

`python -m benchmarks` measures everything, prints a table, and draws the plots of `docs/explanation/performance.md`.
Every figure is the median over fresh processes or over alternating rounds in one process. Beside each stands what it is
compared with: a floor that no client can undercut by much, and the older client `heksher` 0.2.2, which gets an
environment of its own under `.cache`.
"""
