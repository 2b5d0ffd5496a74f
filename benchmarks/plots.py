"""The two plots of the documentation: what a read and what a refresh cost, by the number of rules."""

from collections.abc import Mapping
from pathlib import Path

import matplotlib

matplotlib.use("svg")
matplotlib.rcParams["svg.hashsalt"] = "heksher_client"  # the same figures give the same file

from matplotlib import pyplot  # noqa: E402 - after the backend is chosen
from matplotlib.axes import Axes  # noqa: E402

Curves = Mapping[str, Mapping[int, float]]


def draw(reads: Curves, refreshes: Curves, folder: Path) -> None:
    """Write `reads.svg` and `refreshes.svg`."""
    wanted = ("users, known user", "many shapes, known user", "heksher 0.2.2: many shapes, known user")
    with_floor = {"the floor": dict.fromkeys(reads[wanted[0]], 1.0), **{name: reads[name] for name in wanted}}
    _draw(with_floor, "time of a read, in floors", folder / "reads.svg")
    milliseconds = {name: {x: y * 1000 for x, y in curve.items()} for name, curve in refreshes.items()}
    _draw(milliseconds, "time of a refresh, in ms", folder / "refreshes.svg")


def _draw(curves: Curves, label: str, path: Path) -> None:
    figure, axes = pyplot.subplots(figsize=(8, 4.5), layout="constrained")
    _plot(axes, curves, label)
    figure.savefig(path, metadata={"Date": None})
    pyplot.close(figure)


def _plot(axes: Axes, curves: Curves, label: str) -> None:
    for name, curve in curves.items():
        style = "--" if name.startswith("heksher 0.2.2") else ":" if "floor" in name or "loads" in name else "-"
        axes.plot(list(curve), list(curve.values()), style, marker="o", label=name)
    axes.set(xscale="log", yscale="log", xlabel="rules", ylabel=label)
    axes.grid(alpha=0.3)
    axes.legend()
