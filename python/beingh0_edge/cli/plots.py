"""Plots for people, by matplotlib without a display."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from ..firmware_bridge import HandLog
from ..robot_hand import RobotHand
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


def plot_hand(path: Path, hand: RobotHand) -> None:
    """A robot hand from above its palm and from the thumb's side: open, and half way closed."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(9, 4.6), layout="constrained")
    FigureCanvasAgg(figure)
    views = figure.subplots(1, 2)
    far = np.where(hand.upper_rad - hand.open_rad >= hand.open_rad - hand.lower_rad, hand.upper_rad, hand.lower_rad)
    axes = hand.palm_axes()
    for pose, style in ((hand.open_rad, "-o"), (0.5 * (hand.open_rad + far), "--o")):
        for i, (finger, points) in enumerate(hand.points_m(pose).items()):
            turned = 1000 * points @ axes
            for view, column in zip(views, (1, 2), strict=True):
                view.plot(turned[:, 0], turned[:, column], style, color=f"C{i}", markersize=3,
                          label=finger if style == "-o" and column == 1 else None)
    for view, title, across in ((views[0], "palm", "to the thumb, mm"), (views[1], "side", "out of the back, mm")):
        view.set_title(title, fontsize=10)
        view.set_xlabel("to the fingers, mm")
        view.set_ylabel(across)
        view.set_aspect("equal", adjustable="datalim")
        view.grid(alpha=0.25)
    figure.legend(loc="outside lower center", ncols=5, frameon=False)
    figure.suptitle(f"{hand.name}, {hand.side}: open (solid), half closed (dashed)", fontsize=11)
    figure.savefig(path, dpi=110)
