"""Opens a checkpoint folder, brings its tensor names to the published ones, and checks that nothing is amiss.

Names and shapes are compared with what config.json demands before anything is converted. Tensors are read one
at a time. Source: the published loader, except that it keeps random values for whatever is missing and we
refuse.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from beingh0_edge.bundle import RobotSpec
from beingh0_edge.errors import BundleError
from beingh0_edge.types import FloatArray

from .config import ModelConfig, RobotConfig, read_config
from .tensor_files import SafetensorsFile, TensorFile
from .torch_file import TorchFile

VISION = "vlm_adapter._vision_model."
LANGUAGE = "vlm_adapter._language_model."
PROJECTOR = "vlm_adapter.mlp1."
MOTION = "motion_adapter."
_MOTION_PARTS = tuple(f"{MOTION}motion_{what}" for what in ("model", "mean", "std"))
EMBEDDING = LANGUAGE + "model.embed_tokens.weight"
HEAD = LANGUAGE + "lm_head.weight"

Progress = Callable[[int, int, str], None]
"""Called with (bytes done, bytes in all, what)."""

# Buffers that a checkpoint may carry although they are computed from the config.
_IGNORED = re.compile(r"rotary_emb\.inv_freq$|embeddings\.position_ids$")
# Of a motion tokenizer: what no decoder or encoder reads.
TRAINING_STATE = ("embed_avg", "cluster_size", "initted", "num_batches_tracked")
_ROWS_AT_ONCE = 4096


@dataclass
class _Recipe:
    """Where a tensor comes from: files to concatenate along the first axis, and maybe a LoRA pair to add."""

    pieces: dict[int, tuple[TensorFile, str]] = field(default_factory=dict)
    lora: dict[str, tuple[TensorFile, str]] = field(default_factory=dict)


class Checkpoint:
    """A folder with config.json and weights. Tensor names are those of the published BeingVLA files."""

    def __init__(self, folder: Path) -> None:
        """Raises BundleError listing every tensor that is missing, unexpected or misshapen."""
        self.folder = folder
        if not folder.is_dir():
            raise BundleError(f"{folder}: no such checkpoint folder", str(folder))
        self.config: ModelConfig = read_config(folder / "config.json")
        self._recipes: dict[str, _Recipe] = {}
        problems = self._index(open_weights(folder))
        self.tied = HEAD not in self._recipes and self.config.language.tied
        problems += self._compare(expected_shapes(self.config, self.tied))
        if problems:
            raise BundleError(f"{folder}: the weights do not fit config.json:\n  " + "\n  ".join(problems),
                              str(folder))

    def weight_files(self) -> list[Path]:
        """Every file that holds tensors of this model."""
        return sorted(self._files())

    def _files(self) -> dict[Path, TensorFile]:
        return {file.path: file for recipe in self._recipes.values()
                for file, _ in (*recipe.pieces.values(), *recipe.lora.values())}

    def names(self) -> Iterator[str]:
        return iter(self._recipes)

    def shape(self, name: str) -> tuple[int, ...]:
        recipe = self._recipes[name]
        shapes = [file.tensors[raw].shape for file, raw in recipe.pieces.values()]
        return (sum(shape[0] for shape in shapes), *shapes[0][1:]) if shapes[0] else ()

    def tensor(self, name: str) -> FloatArray:
        """The whole tensor, float32."""
        recipe = self._recipes[name]
        value = np.concatenate([file.read(raw) for file, raw in recipe.pieces.values()]) \
            if len(recipe.pieces) > 1 else next(file.read(raw) for file, raw in recipe.pieces.values())
        if recipe.lora:
            (file_a, a), (file_b, b) = recipe.lora["A"], recipe.lora["B"]
            down = file_a.read(a)
            part = "language" if name.startswith(LANGUAGE) else "vision"
            rank = self.config.lora_rank[part] or down.shape[0]
            value = value + (2 * rank / down.shape[0]) * (file_b.read(b) @ down)
        return value

    def rows(self, name: str, first: int, last: int) -> FloatArray:
        """Rows [first, last) of the tensor, float32."""
        recipe = self._recipes[name]
        if len(recipe.pieces) == 1 and not recipe.lora:
            file, raw = next(iter(recipe.pieces.values()))
            return file.read(raw, first, last)
        return self.tensor(name)[first:last]

    def nbytes(self) -> int:
        """Bytes of all tensors as float32."""
        return sum(4 * int(np.prod(self.shape(name))) for name in self._recipes)

    def check_values(self, progress: Progress | None = None) -> None:
        """Reads everything once. Raises BundleError for a file that does not have its checksums (torch files have
        them), or listing every tensor with values that are not finite.
        """
        for file in self._files().values():
            file.verify()
        total, done, bad = self.nbytes(), 0, []
        for name in self._recipes:
            if name.startswith(MOTION) and name.endswith(TRAINING_STATE):
                continue
            shape = self.shape(name)
            rows = shape[0] if shape else 1
            for first in range(0, rows, _ROWS_AT_ONCE):
                part = (
                    self.rows(name, first, min(first + _ROWS_AT_ONCE, rows)) if shape else self.tensor(name)
                )
                done += part.nbytes
                if not np.isfinite(part).all():
                    bad.append(name)
                    break
            if progress:
                progress(done, total, f"checking {name}")
        if bad:
            raise BundleError(
                f"{self.folder}: values that are not finite in " + ", ".join(bad), str(self.folder)
            )

    def _index(self, weights: dict[str, TensorFile]) -> list[str]:
        problems: list[str] = []
        native = any("vision_tower." in name for name in weights)
        for raw, file in weights.items():
            name, piece, lora = official_name(raw, native)
            if _IGNORED.search(name):
                continue
            recipe = self._recipes.setdefault(name, _Recipe())
            slots = recipe.lora if lora else recipe.pieces
            key = lora or piece
            if key in slots:
                problems.append(f"{name} comes twice, once as {raw}")
            slots[key] = (file, raw)  # type: ignore[index]
        for name, recipe in self._recipes.items():
            recipe.pieces = dict(sorted(recipe.pieces.items()))
            if recipe.lora and (set(recipe.lora) != {"A", "B"} or not recipe.pieces):
                problems.append(f"{name} has an incomplete LoRA pair")
        return problems

    def _compare(self, expected: dict[str, tuple[int, ...]]) -> list[str]:
        problems = [f"missing {name} {list(shape)}" for name, shape in expected.items()
                    if not self._pieces_of(name)]
        problems += [f"unexpected {name}" for name in self._recipes
                     if name not in expected and not name.startswith(_MOTION_PARTS)]
        for name, shape in expected.items():
            if self._pieces_of(name) and self.shape(name) != shape:
                problems.append(f"{name}: expected {list(shape)}, got {list(self.shape(name))}")
        return problems

    def _pieces_of(self, name: str) -> bool:
        return name in self._recipes and bool(self._recipes[name].pieces)


def expected_shapes(config: ModelConfig, tied: bool) -> dict[str, tuple[int, ...]]:
    """Name and shape of every tensor that a model of this geometry has (published names)."""
    v, c = config.vision, config.language
    shapes: dict[str, tuple[int, ...]] = {
        VISION + "embeddings.class_embedding": (1, 1, v.hidden),
        VISION + "embeddings.position_embedding": (1, v.table_positions, v.hidden),
        VISION + "embeddings.patch_embedding.weight": (v.hidden, 3, v.patch, v.patch),
        VISION + "embeddings.patch_embedding.bias": (v.hidden,),
    }
    for i in range(v.stored_layers):
        layer = f"{VISION}encoder.layers.{i}."
        for norm in ("norm1", "norm2"):
            shapes[f"{layer}{norm}.weight"] = (v.hidden,)
            if not v.rms_norm:
                shapes[f"{layer}{norm}.bias"] = (v.hidden,)
        shapes[layer + "attn.qkv.weight"] = (3 * v.hidden, v.hidden)
        if v.qkv_bias:
            shapes[layer + "attn.qkv.bias"] = (3 * v.hidden,)
        if v.qk_norm:
            shapes |= {layer + "attn.q_norm.weight": (v.hidden,), layer + "attn.k_norm.weight": (v.hidden,)}
        shapes |= {
            layer + "attn.proj.weight": (v.hidden, v.hidden), layer + "attn.proj.bias": (v.hidden,),
            layer + "mlp.fc1.weight": (v.mlp, v.hidden), layer + "mlp.fc1.bias": (v.mlp,),
            layer + "mlp.fc2.weight": (v.hidden, v.mlp), layer + "mlp.fc2.bias": (v.hidden,),
            layer + "ls1": (v.hidden,), layer + "ls2": (v.hidden,),
        }
    wide = v.hidden * config.shuffle**2
    shapes |= {
        PROJECTOR + "0.weight": (wide,), PROJECTOR + "0.bias": (wide,),
        PROJECTOR + "1.weight": (c.hidden, wide), PROJECTOR + "1.bias": (c.hidden,),
        PROJECTOR + "3.weight": (c.hidden, c.hidden), PROJECTOR + "3.bias": (c.hidden,),
        EMBEDDING: (c.vocabulary, c.hidden), LANGUAGE + "model.norm.weight": (c.hidden,),
    }
    if not tied:
        shapes[HEAD] = (c.vocabulary, c.hidden)
    q, kv = c.heads * c.head_dim, c.kv_heads * c.head_dim
    for i in range(c.layers):
        layer = f"{LANGUAGE}model.layers.{i}."
        shapes |= {
            layer + "self_attn.q_proj.weight": (q, c.hidden),
            layer + "self_attn.q_proj.bias": (q,),
            layer + "self_attn.k_proj.weight": (kv, c.hidden),
            layer + "self_attn.k_proj.bias": (kv,),
            layer + "self_attn.v_proj.weight": (kv, c.hidden),
            layer + "self_attn.v_proj.bias": (kv,),
            layer + "self_attn.o_proj.weight": (c.hidden, q),
            layer + "mlp.gate_proj.weight": (c.mlp, c.hidden),
            layer + "mlp.up_proj.weight": (c.mlp, c.hidden),
            layer + "mlp.down_proj.weight": (c.hidden, c.mlp),
            layer + "input_layernorm.weight": (c.hidden,),
            layer + "post_attention_layernorm.weight": (c.hidden,),
        }
    if config.robot:
        shapes |= robot_spec(config.robot).tensor_shapes(c.hidden)
    return shapes


def robot_spec(robot: RobotConfig) -> RobotSpec:
    return RobotSpec("robot.safetensors", robot.proprio_dim, robot.action_dim, robot.chunk_length,
                     robot.gen_action_type, robot.state_names, robot.action_names, robot.statistics)


# --------------------------------------------------------------------------------------------- names

_NATIVE = [
    (re.compile(pattern), target)
    for pattern, target in (
        (r"^(?:model\.)?vision_tower\.embeddings\.cls_token$", VISION + "embeddings.class_embedding"),
        (
            r"^(?:model\.)?vision_tower\.embeddings\.position_embeddings$",
            VISION + "embeddings.position_embedding",
        ),
        (
            r"^(?:model\.)?vision_tower\.embeddings\.patch_embeddings\.projection\.",
            VISION + "embeddings.patch_embedding.",
        ),
        (
            r"^(?:model\.)?vision_tower\.encoder\.layer\.(\d+)\.attention\.projection_layer\.",
            VISION + r"encoder.layers.\1.attn.proj.",
        ),
        (
            r"^(?:model\.)?vision_tower\.encoder\.layer\.(\d+)\.attention\.",
            VISION + r"encoder.layers.\1.attn.",
        ),
        (
            r"^(?:model\.)?vision_tower\.encoder\.layer\.(\d+)\.layernorm_before\.",
            VISION + r"encoder.layers.\1.norm1.",
        ),
        (
            r"^(?:model\.)?vision_tower\.encoder\.layer\.(\d+)\.layernorm_after\.",
            VISION + r"encoder.layers.\1.norm2.",
        ),
        (r"^(?:model\.)?vision_tower\.encoder\.layer\.(\d+)\.lambda_", VISION + r"encoder.layers.\1.ls"),
        (r"^(?:model\.)?vision_tower\.encoder\.layer\.(\d+)\.", VISION + r"encoder.layers.\1."),
        (r"^(?:model\.)?multi_modal_projector\.layer_norm\.", PROJECTOR + "0."),
        (r"^(?:model\.)?multi_modal_projector\.linear_1\.", PROJECTOR + "1."),
        (r"^(?:model\.)?multi_modal_projector\.linear_2\.", PROJECTOR + "3."),
        (r"^(?:model\.)?language_model\.lm_head\.|^lm_head\.", LANGUAGE + "lm_head."),
        (r"^(?:model\.)?language_model\.(?:model\.)?", LANGUAGE + "model."),
    )
]
_RAW = (("vision_model.", VISION), ("language_model.", LANGUAGE), ("mlp1.", PROJECTOR))
_QKV = re.compile(r"\.attn\.([qkv])_proj\.")
_LORA = re.compile(r"\.lora_([AB])(?:\.default)?\.weight$")


def official_name(raw: str, native: bool = False) -> tuple[str, int, str]:
    """(published name, piece of it, "A" or "B" for half of a LoRA pair) of a tensor in a file.

    Undone: the DeepSpeed prefix `module.`, raw InternVL names, Hugging Face's native InternVL names
    (`native`; its q, k, v become pieces 0, 1, 2 of one qkv), and the wrappers that PEFT inserts for LoRA.
    """
    name, piece, lora = raw.removeprefix("module."), 0, ""
    name = (
        name.replace(".base_model.model.", ".").replace(".base_layer.", ".").removeprefix("base_model.model.")
    )
    if half := _LORA.search(name):
        lora, name = half.group(1), name[: half.start()] + ".weight"
    if native:
        for pattern, target in _NATIVE:
            name, hits = pattern.subn(target, name)
            if hits:
                break
        if part := _QKV.search(name):
            piece = "qkv".index(part.group(1))
            name = name.replace(part.group(0), ".attn.qkv.")
    else:
        for old, new in _RAW:
            if name.startswith(old):
                name = new + name.removeprefix(old)
    return name, piece, lora


# --------------------------------------------------------------------------------------------- files


def open_weights(folder: Path) -> dict[str, TensorFile]:
    """Every tensor name in the folder's weights and the file that holds it; safetensors before pickles."""
    index = folder / "model.safetensors.index.json"
    if index.is_file():
        return _open_shards(index)
    single = folder / "model.safetensors"
    if single.is_file():
        file: TensorFile = SafetensorsFile(single)
        return dict.fromkeys(file.tensors, file)
    for name in ("pytorch_model.bin", "pytorch_model.pt"):
        if (folder / f"{name}.index.json").is_file():
            return _open_shards(folder / f"{name}.index.json")
        if (folder / name).is_file():
            pickled = TorchFile(folder / name)
            return dict.fromkeys(pickled.tensors, pickled)
    others = sorted(path for path in folder.iterdir() if path.suffix in (".safetensors", ".bin", ".pt", ".pth"))
    if len(others) == 1:  # of another name, but there is no doubt
        file = SafetensorsFile(others[0]) if others[0].suffix == ".safetensors" else TorchFile(others[0])
        return dict.fromkeys(file.tensors, file)
    raise BundleError(
        f"{folder}: no weights; expected model.safetensors or pytorch_model.bin, single or sharded with its index, "
        f"or one file of another name; found {', '.join(path.name for path in others) or 'none'}", str(folder))


def _open_shards(index: Path) -> dict[str, TensorFile]:
    try:
        names = json.loads(index.read_bytes())["weight_map"]
        shards = sorted({str(shard) for shard in names.values()})
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise BundleError(f"{index}: not a weight index ({error!r})", str(index)) from error
    weights: dict[str, TensorFile] = {}
    missing = [shard for shard in shards if Path(shard).name != shard or not (index.parent / shard).is_file()]
    if missing:
        raise BundleError(f"{index}: missing shards next to it: {', '.join(missing)}", str(index))
    for shard in shards:
        path = index.parent / shard
        file: TensorFile = SafetensorsFile(path) if path.suffix == ".safetensors" else TorchFile(path)
        for name in file.tensors:
            if names.get(name) != shard:
                raise BundleError(
                    f"{file.path}: holds {name}, which {index.name} places in {names.get(name)}",
                    str(file.path),
                )
            weights[name] = file
    if lost := [name for name in names if name not in weights]:
        raise BundleError(f"{index}: its shards lack {', '.join(lost)}", str(index))
    return weights
