"""The commands and their options; those for robot hands are in hand_app.py.

Each one imports what it needs when it runs, so that --help is instant.
"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from .hand_app import bridge, hand
from .numbers import number, whole_number

# typer wraps, or in newer versions contains, click; both call the base of all usage errors by this name
CommandLineError: Any = next(kind for kind in typer.BadParameter.__mro__ if kind.__name__ == "ClickException")
Aborted = typer.Abort

OPTIONS = {"help_option_names": ["-h", "--help"], "max_content_width": 110}
app = typer.Typer(
    name="beingh0", rich_markup_mode=None, add_completion=False, context_settings=OPTIONS,
    help="Run Being-H0 models on the robot: a picture and a sentence in, moving fingers out.",
    epilog="Start with: beingh0 demo")
train = typer.Typer(rich_markup_mode=None, help="Train a model (needs the extra [train]).")
evaluate = typer.Typer(rich_markup_mode=None, help="Measure a model on scenes it has not seen.")
bundle = typer.Typer(rich_markup_mode=None, help="Look at a bundle, the folder that holds a model.")
app.add_typer(train, name="train")
app.add_typer(evaluate, name="eval")
app.add_typer(bundle, name="bundle")
app.add_typer(hand, name="hand")


def command() -> Any:
    return typer.main.get_command(app)


BundleArgument = Annotated[str, typer.Argument(
    metavar="BUNDLE", help="A bundle's folder, or the name of a packaged one: nano.", show_default=False)]


def _show_version(wanted: bool) -> None:
    if wanted:
        from .. import __version__

        typer.echo(f"beingh0-edge {__version__}")
        raise typer.Exit


def _help_when_alone(context: typer.Context) -> None:
    if context.invoked_subcommand is None:
        typer.echo(context.get_help())


@app.callback(invoke_without_command=True)
def root(
    context: typer.Context,
    version: Annotated[bool, typer.Option("--version", callback=_show_version, is_eager=True,
                                          help="Show the version and exit.")] = False,
) -> None:
    _help_when_alone(context)


for group in (train, evaluate, bundle, hand):
    group.callback(invoke_without_command=True)(_help_when_alone)


@app.command()
def demo(
    out: Annotated[Path, typer.Option(help="Folder for the results.")] = Path("demo_out"),
    bundle: Annotated[str, typer.Option(metavar="BUNDLE", help="The model that is asked.")] = "nano",
) -> None:
    """From a picture to moving fingers, simulated.

    The bundled model reads a bundled picture and closes a simulated Inspire hand. All but the hand is real:
    the model, its motion, the retargeting, and the bridge, which talks to the hand over a pseudo-terminal as
    it would over a serial port. Takes about ten seconds.
    """
    from .demo import run_demo

    typer.echo(run_demo(out, bundle))


@app.command()
def infer(
    bundle: BundleArgument,
    image: Annotated[Path, typer.Option(help="The picture (RGB: .png, .jpg, ...).", show_default=False)],
    task: Annotated[str, typer.Option(help="What to do, e.g. 'pick up the red can'.", show_default=False)],
    out: Annotated[Path, typer.Option(help="Folder for the results.", show_default=False)],
    hands: Annotated[str, typer.Option(metavar="left|right|both", help="Which hands move.")] = "right",
    seconds: Annotated[int, typer.Option(parser=whole_number, metavar="N",
                                         help="Length of the motion, whole seconds.")] = 1,
    seed: Annotated[int, typer.Option(parser=whole_number, metavar="N",
                                      help="The same seed gives the same motion.")] = 0,
    greedy: Annotated[bool, typer.Option("--greedy", help="Take the likeliest id every time.")] = False,
    temperature: Annotated[float, typer.Option(parser=number, metavar="T",
                                               help="Of the draws; lower is less varied.")] = 1.0,
    intrinsics: Annotated[str | None, typer.Option(
        metavar="FX,FY,CX,CY", show_default=False,
        help="The camera of the picture, in its pixels. Without it the bundle's default camera is assumed, "
             "and distances are only as good as that.")] = None,
) -> None:
    """Motion for your picture and sentence.

    Writes motion.npz, motion.json (units and frames inside), overlay.png and overlay.mp4.
    """
    from .infer import Request, run_infer

    typer.echo(run_infer(Request(bundle=bundle, image=image, task=task, hands=hands, seconds=seconds,
                                 seed=seed, greedy=greedy, temperature=temperature,
                                 intrinsics_px=_four_numbers(intrinsics)), out))


def _four_numbers(text: str | None) -> tuple[float, float, float, float] | None:
    if text is None:
        return None
    try:
        fx, fy, cx, cy = (float(part) for part in text.split(","))
    except ValueError:
        raise ValueError(f"--intrinsics: expected four numbers fx,fy,cx,cy, got {text!r}") from None
    return fx, fy, cx, cy


@train.command("nano")
def train_nano(
    out: Annotated[Path, typer.Option(
        help="Folder of the run; the same folder goes on where it stopped.")] = Path("runs/nano"),
    bundle: Annotated[Path | None, typer.Option(
        help="Also write the finished bundle here.", show_default=False)] = None,
    pictures: Annotated[int | None, typer.Option(
        parser=whole_number, metavar="N", show_default=False,
        help="Pictures to train on (default: the recipe's).")] = None,
    scenes: Annotated[int | None, typer.Option(
        parser=whole_number, metavar="N", help="Scenes to draw (default: the recipe's).", show_default=False)] = None,
    workers: Annotated[int, typer.Option(parser=whole_number, metavar="N", help="Processes that draw pictures.")] = 2,
    device: Annotated[str | None, typer.Option(
        help="cpu or cuda (default: cuda if there is one).", show_default=False)] = None,
) -> None:
    """Train beingh0-nano from nothing.

    Draws the data, trains motion tokenizer and model, writes checkpoint and bundle. Hours on two cores,
    minutes on a GPU; can be stopped and started again at any point.
    """
    from ..train.nano import main as run

    checkpoint = run(out, pictures=pictures, scenes=scenes, bundle=bundle, workers=workers, device=device)
    typer.echo(f"checkpoint: {checkpoint}" + (f"\nbundle: {bundle}" if bundle else ""))


@evaluate.command("nano")
def eval_nano(
    episodes: Annotated[int, typer.Option(parser=whole_number, metavar="N",
                                          help="Held-out scenes per row of the table.")] = 500,
    json: Annotated[Path | None, typer.Option(metavar="FILE", help="Also write all figures here.",
                                              show_default=False)] = None,
    bundle: Annotated[str, typer.Option(metavar="BUNDLE", help="The model to measure.")] = "nano",
    main_only: Annotated[bool, typer.Option("--main-only", help="Only the first row: pick, right hand.")] = False,
    workers: Annotated[int, typer.Option(parser=whole_number, metavar="N",
                                         help="Rows measured at the same time; each takes about one core.")] = 1,
) -> None:
    """Does the model follow picture and words?

    Held-out scenes go through the whole deployed path; the table says where the hand ends, and how far off.
    """
    from .evaluation import run_evaluation

    typer.echo(run_evaluation(bundle, episodes, json, main_only, workers))


@bundle.command("inspect")
def bundle_inspect(
    bundle: BundleArgument,
    json: Annotated[bool, typer.Option("--json", help="Everything, for programs.")] = False,
) -> None:
    """What a bundle holds, and where it comes from."""
    from .bundles import inspect

    typer.echo(inspect(bundle, json))


@bundle.command("verify")
def bundle_verify(bundle: BundleArgument) -> None:
    """Check every file of a bundle.

    Sizes, hashes, tensor names and shapes, finite values, and that nothing foreign lies in the folder.
    """
    from .bundles import verify

    typer.echo(verify(bundle))


@bundle.command("compare")
def bundle_compare(
    a: Annotated[str, typer.Argument(metavar="A", help="A bundle: the original.", show_default=False)],
    b: Annotated[str, typer.Argument(metavar="B", help="A bundle of the same model.", show_default=False)],
    samples: Annotated[int, typer.Option(parser=whole_number, metavar="N", help="Questions to ask both.")] = 3,
    json: Annotated[bool, typer.Option("--json", help="Everything, for programs.")] = False,
) -> None:
    """What B costs or saves against A.

    Sizes, number formats, errors of every part, and how far apart the motions end.
    """
    from .bundles import compare

    typer.echo(compare(a, b, samples, json))


@app.command()
def convert(
    checkpoint: Annotated[str, typer.Argument(
        metavar="CHECKPOINT", show_default=False,
        help="Folder of a Being-H0 checkpoint, or its name on the Hugging Face hub (org/name).")],
    out: Annotated[Path, typer.Option(metavar="BUNDLE", help="Folder of the new bundle.", show_default=False)],
    tokenizer: Annotated[str | None, typer.Option(
        metavar="WRIST+FINGER", show_default=False,
        help="Motion tokenizer folders in id order (default: motion/ of the checkpoint).")] = None,
    mano_left: Annotated[Path | None, typer.Option(
        metavar="FILE", show_default=False, help="MANO_LEFT.pkl or .npz (default: synthetic hands).")] = None,
    mano_right: Annotated[Path | None, typer.Option(
        metavar="FILE", show_default=False, help="MANO_RIGHT.pkl or .npz. With one hand given, the bundle has "
                                                 "only that hand.")] = None,
    layout: Annotated[str, typer.Option(
        metavar="trimmed|full", help="Keep only the rows that motion needs, or the whole vocabulary.")] = "trimmed",
    quant: Annotated[str, typer.Option(
        metavar="TYPE", help="Language model: F32, F16, BF16, Q8_0, Q6_K, Q5_K_M, Q4_K_M, Q4_0, IQ4_NL, ..., or "
                             "Q4_MIX: 4 bits, and more where a search finds that they pay.")] = "Q8_0",
    vision: Annotated[str | None, typer.Option(
        metavar="TYPE", show_default=False,
        help="Vision tower: fp32, fp16, int8_dynamic (faster), or int8 (calibrated on drawn pictures). Default: fp16, "
             "beside F32 fp32.")] = None,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace a bundle that is already there.")] = False,
    report: Annotated[int, typer.Option(
        parser=whole_number, metavar="N", help="Measure the bundle on N questions and put report.md into it; for that "
                                                "the float32 model lies beside it for a while. 0: no report.")] = 3,
    imatrix: Annotated[str, typer.Option(
        metavar="auto|none|FILE", help="Importance of columns for types below 8 bits: measured on prompts and motion, "
                                       "none, or a file of llama.cpp's.")] = "auto",
    budget: Annotated[float, typer.Option(parser=number, metavar="SHARE",
                                          help="Q4_MIX: how many more bytes per id it may find.")] = 0.25,
    questions: Annotated[int, typer.Option(parser=whole_number, metavar="N",
                                           help="Questions that importance and search are measured on.")] = 8,
    override: Annotated[list[str] | None, typer.Option(
        metavar="PATTERN=TYPE", show_default=False,
        help="Another type for the tensors a pattern matches, e.g. 'output.weight=Q8_0'. Repeat it.")] = None,
    mmproj: Annotated[str | None, typer.Option(
        metavar="TYPE", show_default=False, help="Also write mmproj.gguf, the vision tower for llama.cpp's own tools: "
                                                 "F32, F16, BF16 or Q8_0.")] = None,
    dry_run: Annotated[bool, typer.Option(
        "--dry-run", help="Only list what would be read and written, after checking all but the values.")] = False,
) -> None:
    """Make a bundle from a Being-H0 checkpoint.

    Published checkpoints (BeingVLA, InternVL and DeepSpeed names, safetensors or torch files, single or in shards) and
    those of beingh0 train. Needs the extra [convert].
    """
    from .convert import Request, run_convert

    typer.echo(run_convert(Request(checkpoint, out, tokenizer, mano_left, mano_right, layout, quant, vision,
                                   overwrite, report, imatrix, budget, questions, tuple(override or ()), mmproj),
                           dry_run))


@app.command()
def export(
    checkpoint: Annotated[str, typer.Argument(
        metavar="CHECKPOINT", show_default=False, help="As for convert.")],
    out: Annotated[Path, typer.Option(metavar="FOLDER", help="Folder of the graphs.", show_default=False)],
    tokenizer: Annotated[str | None, typer.Option(
        metavar="WRIST+FINGER", show_default=False, help="As for convert.")] = None,
    layout: Annotated[str, typer.Option(metavar="trimmed|full", help="Rows of the head, as for convert.")] = "full",
    language: Annotated[str, typer.Option(
        metavar="TYPE", help="Language model: fp32, fp16 (stored so), or int4 (4-bit blocks).")] = "fp16",
    vision: Annotated[str, typer.Option(metavar="TYPE", help="Vision tower: fp32 or fp16.")] = "fp16",
    static: Annotated[str | None, typer.Option(
        metavar="PROMPT,CACHE", show_default=False,
        help="Fixed lengths in tokens, batch 1, as TensorRT likes: a graph for the prompt and one per id.")] = None,
    check: Annotated[bool, typer.Option(
        help="Run every graph once in ONNX Runtime and compare with plain numpy.")] = True,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace graphs that are already there.")] = False,
) -> None:
    """Write every part of a checkpoint as an ONNX graph.

    For ONNX Runtime or TensorRT without this package: vision, text embeddings, language model with cache, motion
    encoder and decoder, robot heads. Names and axes: graphs.json in the folder, and docs/onnx.md.
    """
    from .export import Request, run_export

    typer.echo(run_export(Request(checkpoint, out, tokenizer, layout, language, vision, static, check, overwrite)))


@app.command()
def doctor(json: Annotated[bool, typer.Option("--json", help="For programs.")] = False) -> None:
    """What this machine can do, and what is missing.

    Processor, accelerators, engines, ports, permissions, extras. Exit status 1 if the demo cannot run here.
    """
    from .doctor import report

    text, healthy = report(json)
    typer.echo(text)
    if not healthy:
        raise typer.Exit(1)


app.command()(bridge)
