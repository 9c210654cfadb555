"""Every part of a checkpoint as an ONNX graph of its own, for users of ONNX Runtime or TensorRT.

graphs.json in the folder lists each graph's inputs and outputs with types and axes, and how far it is from the plain
numpy reading of the checkpoint.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

from beingh0_edge.bundle import RobotSpec, TokenSpec
from beingh0_edge.errors import BundleError
from beingh0_edge.files import replace_folder, write_json
from beingh0_edge.motion_tokenizer import MotionTokenizer
from beingh0_edge.types import FloatArray, IntArray

from . import reference
from .build import language_vocabulary, require
from .checkpoint import EMBEDDING, Checkpoint, Progress, robot_spec
from .motion_folder import motion_args, write_motion
from .onnx_graph import Axes, Graph
from .onnx_language import LanguageGraph, Precision, write_language
from .onnx_motion import Signature, decoder_graph, encoder_graph
from .sources import default_folders
from .vocabulary import find_tokens
from .write_onnx import write_vision

LISTING = "graphs.json"
LANGUAGE_PRECISIONS: tuple[Precision, ...] = ("fp32", "fp16", "int4")
_CHECKED_TEXT = 12  # text tokens around the picture in the check's prompt

Signatures = dict[str, Signature]
Errors = dict[str, float]


def export_onnx(
    checkpoint_dir: str | Path, out_dir: str | Path, *, layout: Literal["trimmed", "full"] = "full",
    language: Precision = "fp16", vision: Literal["fp32", "fp16"] = "fp16", static: tuple[int, int] | None = None,
    tokenizer_folders: Sequence[str | Path] | None = None, check: bool = True, overwrite: bool = False,
    progress: Progress | None = None,
) -> dict[str, Any]:
    """Writes the graphs into `out_dir` and returns what graphs.json says.

    layout    rows of the head, as in a bundle
    language  "fp16": stored in half precision; "int4": its products in 4-bit blocks of 32; computed in float32
    static    (prompt tokens, cache length): batch 1 and fixed lengths, in a graph for each of the two
    check     run every graph in ONNX Runtime against numpy and tell the largest errors
    Raises    BundleError for what is wrong with the checkpoint, ValueError for arguments that cannot be.

    Nothing is left behind if it fails or is interrupted.
    """
    import onnx

    require("onnx")
    if language not in LANGUAGE_PRECISIONS:
        raise ValueError(f"language: expected one of {', '.join(LANGUAGE_PRECISIONS)}, got {language!r}")
    if layout not in ("trimmed", "full"):
        raise ValueError(f"layout: expected 'trimmed' or 'full', got {layout!r}")
    if vision not in ("fp32", "fp16"):
        raise ValueError(f"vision: expected 'fp32' or 'fp16', got {vision!r}")
    if static is not None and min(static) < 1:
        raise ValueError(f"static: expected two lengths of at least 1, got {static}")
    source, out = Path(checkpoint_dir), Path(out_dir)
    if out.exists() and not (out / LISTING).is_file():
        raise BundleError(f"{out}: already exists and holds no exported graphs", str(out))
    if out.exists() and not overwrite:
        raise BundleError(f"{out}: already exists; --overwrite (overwrite=True) replaces it", str(out))
    folders = [Path(folder) for folder in tokenizer_folders or default_folders(source)]
    checkpoint = Checkpoint(source, motion_args(folders), progress=progress)
    if static is not None and static[0] <= checkpoint.config.image_tokens:
        raise ValueError(f"static: expected a prompt longer than the picture's {checkpoint.config.image_tokens} "
                         f"tokens, got {static[0]}")
    robot = robot_spec(checkpoint.config.robot) if checkpoint.config.robot else None
    out.parent.mkdir(parents=True, exist_ok=True)
    with TemporaryDirectory() as scratch, TemporaryDirectory(prefix=".beingh0-", suffix=".partial",
                                                             dir=out.parent) as stage:
        work = Path(stage) / "graphs"
        work.mkdir()
        tokens, _ = find_tokens(source, checkpoint.config, Path(scratch))
        motion = write_motion(folders, checkpoint, Path(scratch), "fp32")
        vocabulary = language_vocabulary(checkpoint, tokens, motion, layout)
        checkpoint.check_values(progress)
        parts = [Path(scratch) / folder for folder in motion.folders] if motion else []
        signatures: Signatures = {
            "text_embeddings.onnx": _write_embeddings(checkpoint, work, language == "fp32", static)}
        spec = write_vision(checkpoint, work / "vision.onnx", vision, progress)
        size, hidden = spec.image_size, checkpoint.config.language.hidden
        signatures["vision.onnx"] = ([("pixel_values", np.float32, [1, 3, size, size])],
                                     [("visual_embeddings", np.float32, [1, spec.tokens, hidden])])
        models = write_language(checkpoint, work, vocabulary, language, static, progress)
        signatures |= {name: model.signature() for name, model in models.items()}
        if parts:
            for name, graph in (("motion_decoder", decoder_graph), ("motion_encoder", encoder_graph)):
                model, signatures[f"{name}.onnx"] = graph(parts, 1 if static else "batch")
                onnx.save_model(model, str(work / f"{name}.onnx"))
        if robot:
            signatures |= _write_robot(checkpoint, work, robot, 1 if static else "batch")
        for name in signatures:
            onnx.checker.check_model(str(work / name), full_check=True)
        errors = _check(checkpoint, work, models, tokens, parts, robot) if check else {}
        facts = {"checkpoint": source.resolve().name, "layout": layout, "language": language, "vision": vision,
                 "head_rows": "ids mot to mot_end, then eos" if vocabulary.trimmed else "every id",
                 "graphs": {name: _listed(signature, errors.get(name)) for name, signature in signatures.items()}}
        write_json(work / LISTING, facts)
        replace_folder(work, out)
    return facts


def _listed(signature: Signature, error: float | None) -> dict[str, Any]:
    listed: dict[str, Any] = {
        what: [{"name": name, "type": np.dtype(kind).name, "axes": list(axes)} for name, kind, axes in values]
        for what, values in zip(("inputs", "outputs"), signature, strict=True)}
    return listed | ({} if error is None else {"largest_error": error})


def _write_embeddings(checkpoint: Checkpoint, work: Path, exact: bool, static: tuple[int, int] | None) -> Signature:
    """input_ids -> inputs_embeds; the table goes to the weight file a slice at a time."""
    import onnx

    rows, hidden = checkpoint.shape(EMBEDDING)
    graph = Graph(work / "text_embeddings.onnx.data")
    table = graph.streamed("embedding", (rows, hidden), np.float32 if exact else np.float16,
                           (checkpoint.rows(EMBEDDING, i, min(i + 4096, rows)) for i in range(0, rows, 4096)))
    picked = graph.op("Gather", [table, "input_ids"])
    graph.op("Identity" if exact else "Cast", [picked], "inputs_embeds", **({} if exact else {"to": 1}))
    axes: Axes = [1, static[0]] if static else ["batch", "sequence"]
    signature: Signature = ([("input_ids", np.int64, axes)], [("inputs_embeds", np.float32, [*axes, hidden])])
    onnx.save_model(graph.model("text embeddings", *signature), str(work / "text_embeddings.onnx"))
    return signature


def _write_robot(checkpoint: Checkpoint, work: Path, robot: RobotSpec, batch: int | str) -> Signatures:
    """proprio_encoder: [batch, proprio] -> [batch, hidden]; action_decoder: [batch, states, hidden] -> actions.

    A state gives one action for "action_token", else a chunk of them.
    """
    import onnx

    hidden, k = checkpoint.config.language.hidden, robot.chunk_length
    single = robot.gen_action_type == "action_token"
    states: int | str = (k if single else 1) if isinstance(batch, int) else "states"
    signatures: Signatures = {
        "proprio_encoder.onnx": ([("proprio", np.float32, [batch, robot.proprio_dim])],
                                 [("proprio_embeds", np.float32, [batch, hidden])]),
        "action_decoder.onnx": ([("hidden_states", np.float32, [batch, states, hidden])],
                                [("actions", np.float32, [batch, states, *([] if single else [k]), robot.action_dim])])}
    for name, (inputs, outputs) in signatures.items():
        g, prefix = Graph(), name.removesuffix(".onnx")

        def linear(x: str, layer: str, g: Graph = g, prefix: str = prefix) -> str:
            weight, bias = (checkpoint.tensor(f"{prefix}.{layer}.{kind}") for kind in ("weight", "bias"))
            product = g.op("MatMul", [x, g.constant(f"{prefix}.{layer}.weight", weight.T)])
            return g.op("Add", [product, g.constant(f"{prefix}.{layer}.bias", bias)])

        y = linear(g.op("Relu", [linear(inputs[0][0], "0")]), "2")
        shape = g.numbers(0, 0, k, robot.action_dim)
        split = prefix == "action_decoder" and not single
        g.op("Reshape" if split else "Identity", [y, shape] if split else [y], outputs[0][0])
        onnx.save_model(g.model(prefix, inputs, outputs), str(work / name))
    return signatures


# ----------------------------------------------------------------------------------------------- check


def _check(checkpoint: Checkpoint, work: Path, models: Mapping[str, LanguageGraph], tokens: TokenSpec,
           parts: list[Path], robot: RobotSpec | None) -> Errors:
    """Largest error of each graph against numpy, on one random prompt, picture, motion and state."""
    random = np.random.default_rng(0)
    config = checkpoint.config
    pixels = random.normal(size=(3, config.image_size, config.image_size)).astype(np.float32)
    static = next(iter(models.values())).lengths.sequence
    count = static or config.image_tokens + _CHECKED_TEXT
    ids = random.integers(0, min(tokens.mot, tokens.img_context), count).astype(np.int32)
    ids[1 : 1 + config.image_tokens] = tokens.img_context
    visual = reference.visual_embeddings(checkpoint, pixels)
    errors = {"vision.onnx": _far(_run(work / "vision.onnx", pixel_values=pixels[None])[0][0], visual)}
    errors |= _check_language(checkpoint, work, models, ids, visual, tokens)
    if parts:
        tokenizer = MotionTokenizer.load(*parts)
        blocks = _random_blocks(tokenizer, random)
        features = tokenizer.decode(blocks)
        errors["motion_decoder.onnx"] = _far(
            np.concatenate([_run(work / "motion_decoder.onnx", motion_ids=b[None])[0] for b in blocks]), features)
        columns = np.split(features, np.cumsum([part.dims for part in tokenizer.parts])[:-1], -1)
        again = np.concatenate([_run(work / "motion_encoder.onnx", features=f[None])[0] for f in features])
        errors["motion_encoder.onnx"] = float((again != tokenizer.encode(*columns)).mean())
    if robot:
        proprio = random.normal(size=(1, robot.proprio_dim)).astype(np.float32)
        states = random.normal(size=(1, robot.chunk_length if robot.gen_action_type == "action_token" else 1,
                                     config.language.hidden)).astype(np.float32)
        for name, key, x in (("proprio_encoder", "proprio", proprio), ("action_decoder", "hidden_states", states)):
            got = _run(work / f"{name}.onnx", **{key: x})[0]
            errors[f"{name}.onnx"] = _far(got, _two_layers(checkpoint, name, x).reshape(got.shape))
    return errors


def _random_blocks(tokenizer: MotionTokenizer, random: np.random.Generator) -> IntArray:
    """int64[2, ids]: each id from its slot's range."""
    values, offset = [], 0
    for part in (part.layout for part in tokenizer.parts):
        layer = np.tile(np.arange(part.layers), part.groups * part.steps)
        first = offset + (0 if part.shared else layer * part.codes)
        values.append(first + random.integers(0, part.codes, (2, part.ids_per_block)))
        offset += part.id_count
    return np.concatenate(values, -1)


def _check_language(checkpoint: Checkpoint, work: Path, models: Mapping[str, LanguageGraph], ids: IntArray,
                    visual: FloatArray, tokens: TokenSpec) -> Errors:
    first = next(iter(models.values()))
    text = _run(work / "text_embeddings.onnx", input_ids=ids[None].astype(np.int64))[0]
    exact_text = np.stack([checkpoint.rows(EMBEDDING, int(i), int(i) + 1)[0] for i in ids])
    errors = {"text_embeddings.onnx": _far(text[0], exact_text)}
    states = reference.hidden_states(checkpoint, ids, visual, tokens.img_context)
    exact = reference.logits(checkpoint, states, first.vocabulary.ids())
    embeds = exact_text.copy()
    embeds[ids == tokens.img_context] = visual
    for name, got in run_language(work, models, embeds).items():
        errors[name] = _far(got, exact[-len(got) :])
    return errors


def run_language(work: Path, models: Mapping[str, LanguageGraph], embeds: FloatArray) -> dict[str, FloatArray]:
    """File -> its logits float32[n, rows] for the last n places: the prompt in one call, its last token in another."""
    last = len(embeds) - 1

    def inputs(first: int, end: int, total: int) -> dict[str, npt.NDArray[Any]]:
        mask = np.zeros((1, total), np.int64)
        mask[0, :first] = mask[0, total - (end - first) :] = 1
        return {"inputs_embeds": embeds[None, first:end], "attention_mask": mask,
                "position_ids": np.arange(first, end, dtype=np.int64)[None]}

    if "language.onnx" in models:
        graph = models["language.onnx"]
        names = [name for name, _, _ in graph.signature()[0] if name.startswith("past")]
        c = graph.checkpoint.config.language
        empty = dict.fromkeys(names, np.zeros((1, c.kv_heads, 0, c.head_dim), np.float32))
        logits, _, *cache = _run(work / "language.onnx", **inputs(0, last, last), **empty)
        step = _run(work / "language.onnx", **inputs(last, last + 1, last + 1), **dict(zip(names, cache, strict=True)))
        return {"language.onnx": np.concatenate([logits[0], step[0][0]])}
    decode = models["language_decode.onnx"]
    whole, _, *rows = _run(work / "language_prefill.onnx", **inputs(0, last + 1, last + 1))
    length = decode.lengths.past or 0
    caches = {}
    for (name, _, axes), value in zip([i for i in decode.signature()[0] if i[0].startswith("past")], rows, strict=True):
        caches[name] = np.zeros([int(n) for n in axes], np.float32)
        kept = min(last, length)
        caches[name][:, :, :kept] = value[:, :, :kept]
    out = {"language_prefill.onnx": np.asarray(whole[0])}
    if last <= length:
        out["language_decode.onnx"] = _run(work / "language_decode.onnx", **inputs(last, last + 1, length + 1),
                                           **caches)[0][0]
    return out


def _two_layers(checkpoint: Checkpoint, name: str, x: FloatArray) -> FloatArray:
    w = {f"{i}.{kind}": checkpoint.tensor(f"{name}.{i}.{kind}") for i in (0, 2) for kind in ("weight", "bias")}
    out: FloatArray = np.maximum(x @ w["0.weight"].T + w["0.bias"], 0) @ w["2.weight"].T + w["2.bias"]
    return out


def _run(path: Path, **inputs: npt.NDArray[Any]) -> list[npt.NDArray[Any]]:
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3
    session = onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
    values: list[npt.NDArray[Any]] = session.run(None, inputs)
    return values


def _far(got: npt.NDArray[Any], exact: npt.NDArray[Any]) -> float:
    return float(np.abs(got.astype(np.float64) - exact).max())
