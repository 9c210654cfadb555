"""Plots for people, by matplotlib without a display."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from ..firmware_bridge import HandLog
from ..types import HandTrajectory


def plot_tracking(path: Path, target: HandTrajectory | None, log: HandLog, start_s: float, title: str,
                  label: str = "target") -> None:
    """Joint targets, what the bridge commanded, and where the hand was. start_s: when the motion began."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(10, 5.6), layout="constrained")
    FigureCanvasAgg(figure)
    names = log.joint_names
    axes = figure.subplots(2, -(-len(names) // 2), sharex=True, sharey=True, squeeze=False).ravel()
    time_s = log.t_s - start_s
    for i, (axis, name) in enumerate(zip(axes, names, strict=False)):
        if target is not None:
            column = target.joint_names.index(name)
            axis.plot(target.t_s, np.degrees(target.q_rad[:, column]), "o", color="#c9640f", markersize=4, label=label)
        axis.plot(time_s, np.degrees(log.q_cmd_rad[:, i]), color="#888888", linewidth=1.2,
                  label="commanded (within the limits)")
        axis.plot(time_s, np.degrees(log.q_rad[:, i]), color="#1f5fa8", linewidth=1.8, label="measured")
        axis.set_title(name.replace("_", " "), fontsize=10)
        axis.grid(alpha=0.25)
    for axis in axes[len(names):]:
        axis.set_axis_off()
    for axis in axes[-(-len(names) // 2):]:
        axis.set_xlabel("seconds")
    axes[0].set_xlim(float(time_s[0]), float(time_s[-1]))
    figure.supylabel("degrees, 0 is open", fontsize=10)
    figure.legend(*axes[0].get_legend_handles_labels(), loc="outside lower center", ncols=3, frameon=False)
    figure.suptitle(title, fontsize=11)
    figure.savefig(path, dpi=110)
