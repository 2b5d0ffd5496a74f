"""The plots of the documentation: times of a read and of a refresh by the number of rules, and pauses by percentile."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import matplotlib

matplotlib.use("svg")
matplotlib.rcParams["svg.hashsalt"] = "heksher_client"  # makes the output reproducible

from cycler import cycler  # noqa: E402 - after the backend is set
from matplotlib import pyplot  # noqa: E402
from matplotlib.axes import Axes  # noqa: E402

Curves = Mapping[str, Mapping[Any, float]]

BASELINES = ("baseline", "orjson.loads of the response", "next to plain Python")

# All colors have a contrast of at least 3.5 with white and with the dark background of the documentation.
INK = "#7a7a7a"
COLORS = ["#2f7ed8", "#c8641b", "#2b9348", "#e0434a", "#9467bd", "#0f8f9c", "#d356ad", "#8a8b17"]
matplotlib.rcParams.update(
    {
        **dict.fromkeys(("text.color", "axes.labelcolor", "axes.edgecolor", "xtick.color", "ytick.color"), INK),
        "axes.prop_cycle": cycler(color=COLORS),
        "grid.color": INK,
        "legend.fontsize": "small",
        "legend.framealpha": 0,
        "savefig.transparent": True,
    }
)


def draw(reads: Curves, refreshes: Curves, pauses: Curves, folder: Path) -> None:
    """Write `reads.svg`, `refreshes.svg` and `pauses.svg`."""
    kinds = ("users, known user", "many shapes, known user", "heksher 0.2.2: many shapes, known user")
    curves = {"baseline": dict.fromkeys(reads[kinds[0]], 1.0), **{kind: reads[kind] for kind in kinds}}
    _draw(curves, "time of a read, in baselines", folder / "reads.svg")
    milliseconds = {name: {x: y * 1000 for x, y in curve.items()} for name, curve in refreshes.items()}
    _draw(milliseconds, "time of a refresh, in ms", folder / "refreshes.svg")
    shown = {name: curve for name, curve in pauses.items() if "replacement" in name or "heksher" not in name}
    milliseconds = {name: {x: y * 1000 for x, y in curve.items()} for name, curve in shown.items()}
    _draw(milliseconds, "time between two reads of a thread, in ms", folder / "pauses.svg", "percentile")


def _draw(curves: Curves, label: str, path: Path, x_label: str = "rules") -> None:
    figure, axes = pyplot.subplots(figsize=(8, 4.5), layout="constrained")
    _plot(axes, curves)
    axes.set(yscale="log", xlabel=x_label, ylabel=label)
    if x_label == "rules":
        axes.set_xscale("log")
    figure.savefig(path, metadata={"Date": None})
    pyplot.close(figure)


def _plot(axes: Axes, curves: Curves) -> None:
    for name, curve in curves.items():
        style = "--" if name.startswith("heksher 0.2.2") else ":" if name in BASELINES else "-"
        axes.plot(list(curve), list(curve.values()), style, marker="o", label=name)
    axes.grid(alpha=0.3)
    axes.legend()
