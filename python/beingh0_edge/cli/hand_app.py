"""The commands `beingh0 hand ...` and `beingh0 bridge`, and their options."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from .numbers import number, whole_number

hand = typer.Typer(rich_markup_mode=None, help="Robot hands: which are known, which answers on a port.")


@hand.command("list")
def hand_list() -> None:
    """The robot hands this version can drive."""
    from .hands import listing

    typer.echo(listing())


HandArgument = Annotated[str, typer.Argument(metavar="HAND", help="One of `beingh0 hand list`.", show_default=False)]
Port = Annotated[str, typer.Option(
    metavar="PORT", show_default=False,
    help="Serial port, HOST[:NUMBER], can0, slcan:/dev/ttyACM0, sim:HAND, or bridge:NAME of a running bridge.")]
Which = Annotated[str, typer.Option(metavar="left|right", help="Which hand it is.")]
Rate = Annotated[float | None, typer.Option(
    parser=number, metavar="HZ", help="Cycles per second (default: the hand's).", show_default=False)]
Baud = Annotated[int | None, typer.Option(
    parser=whole_number, metavar="N", help="Default: the hand's.", show_default=False)]
Id = Annotated[int | None, typer.Option(
    "--id", parser=whole_number, metavar="N", help="Default: the hand's.", show_default=False)]
HandOptions = Annotated[list[str] | None, typer.Option(
    "--option", metavar="NAME=VALUE", help="Of the hand itself, e.g. force_g=300; may be repeated.",
    show_default=False)]
Seconds = Annotated[float | None, typer.Option(
    parser=number, metavar="S", help="How long (default: a slow motion, or until Ctrl-C).", show_default=False)]
Plot = Annotated[Path, typer.Option(metavar="FILE", help="Plot of the motion.")]
Log = Annotated[Path | None, typer.Option(metavar="FILE", help="Also keep the cycles, for replay.", show_default=False)]


def _where(name: str, port: str, side: str, rate: float | None, baud: int | None, device_id: int | None,
           options: list[str] | None) -> Any:
    from .hand_bench import Where

    return Where(name, port, side, rate, baud, device_id, tuple(options or ()))


def bridge(
    name: HandArgument, port: Port,
    as_: Annotated[str, typer.Option("--as", metavar="NAME", help="What programs call it: bridge:NAME.",
                                     show_default=False)],
    side: Which = "right", rate: Rate = None, baud: Baud = None, device_id: Id = None, option: HandOptions = None,
) -> None:
    """Drive a hand in a process of its own.

    Programs open it with Bridge.open(HAND, port="bridge:NAME"). When one crashes or hangs, the hand stops, holds and
    then relaxes; `beingh0 hand estop NAME` stops it whatever hangs. One process per hand.
    """
    from .hand_bench import serve

    serve(_where(name, port, side, rate, baud, device_id, option), as_, typer.echo)


@hand.command("import")
def hand_import(
    file: Annotated[Path, typer.Argument(metavar="FILE", help="URDF or MJCF.", show_default=False)],
    tip: Annotated[list[str], typer.Option(
        metavar="FINGER=LINK", show_default=False,
        help="Fingertip: a link, body or site, or a point in one (index=link:0,0,0.03, metres). Once per finger: "
             "thumb, index, middle, ring, little.")],
    out: Annotated[Path, typer.Option(metavar="FILE", help="Ends in .json; a picture is written beside it.",
                                      show_default=False)],
    side: Annotated[str, typer.Option(metavar="left|right")] = "right",
    name: Annotated[str | None, typer.Option(help="Default: that of the file.", show_default=False)] = None,
    base: Annotated[str | None, typer.Option(
        metavar="LINK", help="The palm (default: the last link all fingers share).", show_default=False)] = None,
    couple: Annotated[list[str] | None, typer.Option(
        metavar="JOINT=DRIVER*1.1", help="A linkage that the file does not have.", show_default=False)] = None,
    fix: Annotated[list[str] | None, typer.Option(
        metavar="JOINT=RAD", help="A joint that stays.", show_default=False)] = None,
    rename: Annotated[list[str] | None, typer.Option(
        metavar="JOINT=NAME", help="Its name in trajectories, e.g. the bridge's.", show_default=False)] = None,
    opened: Annotated[list[str] | None, typer.Option(
        "--open", metavar="JOINT=RAD", help="Where the open hand is not at 0 (new name).", show_default=False)] = None,
    natural: Annotated[list[str] | None, typer.Option(
        metavar="JOINT=LOW:HIGH", help="Range of human-like poses, where the limits allow more.",
        show_default=False)] = None,
    radius: Annotated[list[str] | None, typer.Option(
        metavar="FINGER=M", help="Half its thickness, to keep fingers apart.", show_default=False)] = None,
    license_text: Annotated[str, typer.Option("--license", metavar="TEXT", help="Of the file's numbers.")] = "",
) -> None:
    """Make a hand known to the retargeter.

    Reads the kinematics of a URDF or MJCF file. Retargeter.load takes the result. Moves nothing.
    """
    from .hand_import import run_import

    typer.echo(run_import(file, out, name, side, tip, base, couple or [], fix or [], rename or [], opened or [],
                          natural or [], radius or [], license_text))


@hand.command("probe")
def hand_probe(
    name: Annotated[str | None, typer.Argument(metavar="[HAND]", help="Ask only for this one.",
                                               show_default=False)] = None,
    port: Annotated[list[str] | None, typer.Option(metavar="PORT", help="May be repeated (default: every serial port).",
                                                   show_default=False)] = None,
    baud: Baud = None, device_id: Id = None,
) -> None:
    """Which hand answers on which port. Moves nothing."""
    from .hand_bench import probe

    typer.echo(probe(name, port or [], baud, device_id))


@hand.command("open")
def hand_open(
    name: HandArgument, port: Port, side: Which = "right", seconds: Seconds = None, plot: Plot = Path("hand_open.png"),
    log: Log = None, rate: Rate = None, baud: Baud = None, device_id: Id = None, option: HandOptions = None,
) -> None:
    """Open the hand: all joints to 0, slowly unless --seconds asks for less."""
    from .hand_bench import go

    typer.echo(go(_where(name, port, side, rate, baud, device_id, option), 0.0, seconds, plot, log))


@hand.command("close")
def hand_close(
    name: HandArgument, port: Port, side: Which = "right",
    amount: Annotated[float, typer.Option(parser=number, metavar="SHARE",
                                          help="Of the way to fully closed, 0 to 1.")] = 1.0,
    seconds: Seconds = None, plot: Plot = Path("hand_close.png"), log: Log = None,
    rate: Rate = None, baud: Baud = None, device_id: Id = None, option: HandOptions = None,
) -> None:
    """Close the hand, or part of the way."""
    from .hand_bench import go

    typer.echo(go(_where(name, port, side, rate, baud, device_id, option), amount, seconds, plot, log))


@hand.command("jog", context_settings={"ignore_unknown_options": True})
def hand_jog(
    name: HandArgument,
    joint: Annotated[str, typer.Argument(metavar="JOINT", show_default=False)],
    degrees: Annotated[float, typer.Argument(parser=number, metavar="DEGREES", help="From where it is.",
                                             show_default=False)],
    port: Port, side: Which = "right", seconds: Seconds = None, plot: Plot = Path("hand_jog.png"), log: Log = None,
    rate: Rate = None, baud: Baud = None, device_id: Id = None, option: HandOptions = None,
) -> None:
    """Move one joint by some degrees."""
    from .hand_bench import jog

    typer.echo(jog(_where(name, port, side, rate, baud, device_id, option), joint, degrees, seconds, plot, log))


@hand.command("monitor")
def hand_monitor(
    name: HandArgument, port: Port, side: Which = "right", seconds: Seconds = None,
    rate: Rate = None, baud: Baud = None, device_id: Id = None, option: HandOptions = None,
) -> None:
    """A live view of angles, forces, temperatures, errors and timing. Moves nothing.

    With --port bridge:NAME it looks at a running bridge without disturbing it.
    """
    from .hand_bench import monitor

    monitor(_where(name, port, side, rate, baud, device_id, option), seconds, typer.echo)


@hand.command("record")
def hand_record(
    name: HandArgument, port: Port,
    out: Annotated[Path, typer.Option(metavar="FILE", help="Ends in .npz; a plot is written beside it.",
                                      show_default=False)],
    side: Which = "right", seconds: Seconds = None,
    rate: Rate = None, baud: Baud = None, device_id: Id = None, option: HandOptions = None,
) -> None:
    """Record what a hand does, until --seconds or Ctrl-C. Moves nothing."""
    from .hand_bench import record

    typer.echo(record(_where(name, port, side, rate, baud, device_id, option), out, seconds,
                      lambda text: typer.echo(text, err=True)))


@hand.command("replay")
def hand_replay(
    name: HandArgument,
    recording: Annotated[Path, typer.Argument(metavar="FILE", help="Written by record or --log.", show_default=False)],
    port: Port, side: Which = "right",
    speed: Annotated[float, typer.Option(parser=number, metavar="FACTOR", help="1 is as recorded.")] = 1.0,
    plot: Plot = Path("hand_replay.png"), log: Log = None,
    rate: Rate = None, baud: Baud = None, device_id: Id = None, option: HandOptions = None,
) -> None:
    """Do again what was recorded, after moving slowly to where it begins."""
    from .hand_bench import replay

    typer.echo(replay(_where(name, port, side, rate, baud, device_id, option), recording, speed, plot, log))


@hand.command("calibrate")
def hand_calibrate(
    name: HandArgument, port: Port, side: Which = "right",
    yes: Annotated[bool, typer.Option("--yes", help="The hand is ready for it.")] = False,
    wait: Annotated[float, typer.Option(parser=number, metavar="S", help="How long the hand takes.")] = 15.0,
    rate: Rate = None, baud: Baud = None, device_id: Id = None, option: HandOptions = None,
) -> None:
    """The hand's own calibration: an Inspire hand zeroes its force sensors."""
    from .hand_bench import calibrate

    typer.echo(calibrate(_where(name, port, side, rate, baud, device_id, option), yes, wait))


@hand.command("estop")
def hand_estop(
    names: Annotated[list[str] | None, typer.Argument(metavar="NAME...", help="Of running bridges.",
                                                      show_default=False)] = None,
    all_of_them: Annotated[bool, typer.Option("--all", help="Every hand that is shared on this machine.")] = False,
) -> None:
    """Stop hands at once, even if their programs hang or were killed.

    Reaches hands driven by `beingh0 bridge` and hands opened with share=NAME.
    """
    from .hand_bench import estop

    for line in estop(names or [], all_of_them):
        typer.echo(line)
