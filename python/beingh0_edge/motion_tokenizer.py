"""Motion tokens to motion features and back (GRQ): published tokenizer folders on top of the C++ kernels."""

from __future__ import annotations

import json
import logging
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
import numpy.typing as npt
import safetensors
import safetensors.numpy

from beingh0_edge import _kernels, safe_pickle
from beingh0_edge.errors import BundleError, TokenError
from beingh0_edge.features import part_dims
from beingh0_edge.tokens import PartLayout
from beingh0_edge.types import FloatArray, IntArray

_log = logging.getLogger(__name__)

ArrayLike = npt.NDArray[Any]
State = dict[str, ArrayLike]

# Upstream's search order; of one name the safetensors file is preferred, as it cannot hold code.
_WEIGHT_STEMS = ("overfit", "net_best_mpjpe", "net_best_mpjpe_labeling")
_NORMS = {None: "none", "LN": "layer", "GN": "group", "BN": "affine"}
_BATCH_NORM_EPS = 1e-6
_GROUP_NORM_GROUPS = 32
_TRAINING_STATE = ("embed_avg", "cluster_size", "initted", "num_batches_tracked")  # of no use at run time


@dataclass(frozen=True)
class TokenizerPart:
    """Geometry of one part. Ids of a part lie in [offset, offset + num_ids), at `start` of each block."""

    name: str  # "wrist", "finger" or "whole"
    feature: str  # e.g. "mano162"
    dims: int
    window: int
    fps: float
    down_t: int
    groups: int
    quantizers: int
    nb_code: int
    shared_codebook: bool
    code_dim: int
    offset: int
    start: int

    @property
    def padding(self) -> int:
        """Frames of zeros appended before encoding; a whole unit if the window is a multiple of it (upstream)."""
        return 2**self.down_t - self.window % 2**self.down_t

    @property
    def positions(self) -> int:
        """Latent frames."""
        return (self.window + self.padding) // 2**self.down_t

    @property
    def ids_per_block(self) -> int:
        return self.groups * self.positions * self.quantizers

    @property
    def num_ids(self) -> int:
        return self.nb_code * (1 if self.shared_codebook else self.quantizers)

    @property
    def layout(self) -> PartLayout:
        """The same as the token grammar sees it."""
        return PartLayout(self.name, self.groups, self.positions, self.quantizers, self.nb_code, self.shared_codebook)


class MotionTokenizer:
    """Decodes blocks of motion ids to motion features, and encodes features to ids.

    A block is one hand over one window (one second in the published models). Features of the parts stand side by side
    in part order; `features.split_features(x, tokenizer.parts)` takes them apart. Thread safe.
    """

    def __init__(self, folders: Sequence[Path]) -> None:
        self._parts: list[TokenizerPart] = []
        self._kernels: list[_kernels.GrqPart] = []
        self._codebooks: list[FloatArray] = []
        for folder in folders:
            source = _Folder(folder)
            part = source.geometry(offset=sum(p.num_ids for p in self._parts), start=self.ids_per_block)
            self._codebooks.append(source.codebooks(part))
            self._kernels.append(source.build(part, self._codebooks[-1]))
            self._parts.append(part)
        first = self._parts[0]
        for part, folder in zip(self._parts, folders, strict=True):
            if (part.window, part.fps) != (first.window, first.fps):
                raise BundleError(f"{folder}: expected window {first.window} at {first.fps:g} fps as in {folders[0]}, "
                                  f"got {part.window} at {part.fps:g} fps", str(folder))

    @classmethod
    def load(cls, *folders: str | Path) -> MotionTokenizer:
        """Read published folders in part order (wrist, finger), one folder of a whole-hand model, or a bundle.

        A folder holds motion_args.json, motion_meta.json, meta_mask.json and weights as .safetensors or .pth; pickles
        are read without executing anything. A bundle has manifest.json and motion/wrist, motion/finger inside.
        Raises: BundleError naming the file, what was got and what was expected.
        """
        start = time.perf_counter()
        paths = [Path(folder) for folder in folders]
        if not paths:
            raise ValueError("folders: expected the parts' folders or a bundle, got none")
        if len(paths) == 1 and (paths[0] / "manifest.json").is_file():
            root = paths[0] / "motion"
            names = ("wrist", "finger") if not (root / "whole").is_dir() else ("whole",)
            paths = [root / name for name in names]
        tokenizer = cls(paths)
        _log.info("loaded motion tokenizer %s (%d ids) in %.3f s", ", ".join(map(str, paths)), tokenizer.num_ids,
                  time.perf_counter() - start)
        return tokenizer

    @property
    def parts(self) -> tuple[TokenizerPart, ...]:
        return tuple(self._parts)

    @property
    def ids_per_block(self) -> int:
        return sum(part.ids_per_block for part in self._parts)

    @property
    def num_ids(self) -> int:
        """How many different motion ids there are."""
        return sum(part.num_ids for part in self._parts)

    @property
    def dims(self) -> int:
        return sum(part.dims for part in self._parts)

    @property
    def window(self) -> int:
        """Frames per block."""
        return self._parts[0].window

    @property
    def fps(self) -> float:
        return self._parts[0].fps

    def codebook(self, part: int | str) -> FloatArray:
        """float32[groups, 1 if shared else quantizers, nb_code, code_dim / groups], read-only; part by index or name."""
        return self._codebooks[self._index(part)]

    def decode(self, ids: ArrayLike) -> FloatArray:
        """Integer [..., ids_per_block] (the N of <motion_id_N>) -> float32[..., window, dims], de-normalised.

        An id counts by its position: one from another quantizer's range decodes as upstream decodes it, modulo nb_code.
        Raises: TokenError with the position of the first id outside its part's range, or if blocks are not whole.
        """
        blocks, batch = self._blocks(ids)
        out = np.empty((len(blocks), self.window, self.dims), np.float32)
        column = 0
        for part, kernel in zip(self._parts, self._kernels, strict=True):
            self._check_range(blocks, part, kernel)
            kernel.decode(blocks, part.start, out, column)
            column += part.dims
        return out.reshape(*batch, self.window, self.dims)

    def encode(self, *part_features: ArrayLike) -> IntArray:
        """Features float[..., window, dims of the part], one array per part -> int32[..., ids_per_block].

        Raises: ValueError for another shape or values that are not finite.
        """
        if len(part_features) != len(self._parts):
            raise ValueError(f"part_features: expected {len(self._parts)} arrays "
                             f"({', '.join(p.name for p in self._parts)}), got {len(part_features)}")
        arrays = [self._features(value, part) for value, part in zip(part_features, self._parts, strict=True)]
        batch = arrays[0].shape[:-2]
        if any(array.shape[:-2] != batch for array in arrays):
            raise ValueError("part_features: expected the same leading axes, got "
                             + " and ".join(str(list(array.shape)) for array in arrays))
        ids = np.empty((int(np.prod(batch, dtype=np.int64)), self.ids_per_block), np.int32)
        for array, part, kernel in zip(arrays, self._parts, self._kernels, strict=True):
            kernel.encode(array.reshape(-1, part.window, part.dims), ids, part.start)
        return ids.reshape(*batch, self.ids_per_block)

    def dequantize(self, ids: ArrayLike, part: int | str) -> FloatArray:
        """Integer [..., ids_per_block] -> a part's latent float32[..., positions, code_dim] that its decoder reads."""
        index = self._index(part)
        blocks, batch = self._blocks(ids)
        self._check_range(blocks, self._parts[index], self._kernels[index])
        latent = self._kernels[index].dequantize(blocks, self._parts[index].start)
        return latent.reshape(*batch, *latent.shape[1:])

    def latent(self, features: ArrayLike, part: int | str) -> FloatArray:
        """A part's features float[..., window, dims] -> encoder output float32[..., positions, code_dim]."""
        index = self._index(part)
        array = self._features(features, self._parts[index])
        latent = self._kernels[index].latent(array.reshape(-1, *array.shape[-2:]))
        return latent.reshape(*array.shape[:-2], *latent.shape[1:])

    def _index(self, part: int | str) -> int:
        names = [p.name for p in self._parts]
        if isinstance(part, str) and part in names:
            return names.index(part)
        if isinstance(part, int) and 0 <= part < len(names):
            return part
        raise ValueError(f"part: expected one of {', '.join(names)} or 0 to {len(names) - 1}, got {part!r}")

    def _blocks(self, ids: ArrayLike) -> tuple[IntArray, tuple[int, ...]]:
        array = np.asarray(ids)
        if array.dtype.kind not in "iu":
            raise TypeError(f"ids: expected integers, got {array.dtype}")
        if array.ndim < 1 or array.shape[-1] != self.ids_per_block:
            raise TokenError(f"ids: expected whole blocks [..., {self.ids_per_block}], got {list(array.shape)}")
        # Values beyond int32 must not wrap into the valid range.
        single = np.clip(array, -1, np.iinfo(np.int32).max).astype(np.int32)
        return np.ascontiguousarray(single).reshape(-1, self.ids_per_block), array.shape[:-1]

    def _check_range(self, blocks: IntArray, part: TokenizerPart, kernel: _kernels.GrqPart) -> None:
        at = kernel.first_foreign_id(blocks, part.start)
        if at >= 0:
            block, position = divmod(at, self.ids_per_block)
            raise TokenError(f"ids: block {block}, position {position} ({part.name}): expected an id in "
                             f"[{part.offset}, {part.offset + part.num_ids}), got {blocks[block, position]}", position)

    @staticmethod
    def _features(value: ArrayLike, part: TokenizerPart) -> FloatArray:
        array = np.asarray(value)
        if array.dtype.kind != "f" or array.ndim < 2 or array.shape[-2:] != (part.window, part.dims):
            raise ValueError(f"{part.name} features: expected float[..., {part.window}, {part.dims}], "
                             f"got {array.dtype}{list(array.shape)}")
        single = np.ascontiguousarray(array, np.float32)
        if not np.isfinite(single).all():
            raise ValueError(f"{part.name} features: expected finite values, got "
                             f"{int(np.sum(~np.isfinite(single)))} that are not")
        return single


class _Folder:
    """One part's files, read and checked."""

    def __init__(self, folder: Path) -> None:
        if not folder.is_dir():
            raise BundleError(f"{folder}: no such folder", str(folder))
        self.folder = folder
        self.args_file = folder / "motion_args.json"
        self.args = _read_json(self.args_file)
        self.weights_file, self.state = _read_weights(folder)
        self.used: set[str] = set()

    def geometry(self, offset: int, start: int) -> TokenizerPart:
        name = self._arg("use_part", None, (type(None), str)) or "whole"
        feature = str(self._arg("motion_feat", "smpl263", (str,)))
        try:
            dims = part_dims(feature, name)
        except ValueError as error:
            raise BundleError(f"{self.args_file}: {error}", str(self.args_file)) from error
        for key, only in (("stride_t", 2), ("output_emb_width", self._size("code_dim", 512))):
            if self._size(key, only) != only:
                raise BundleError(f"{self.args_file}: {key}: expected {only}, got {self.args[key]}",
                                  str(self.args_file))
        quantizer = self._choice("quantizer_name", None, ("group_residualvq", "residualvq"))
        part = TokenizerPart(
            name=name, feature=feature, dims=dims, window=self._size("window_size", 64),
            fps=float(self._arg("fps", 20, (int, float))), down_t=self._size("down_t", 2, largest=8),
            groups=self._size("num_quant_groups", 2) if quantizer == "group_residualvq" else 1,
            quantizers=self._size("num_quantizers", 8), nb_code=self._size("nb_code", 512),
            shared_codebook=bool(self._arg("shared_codebook", False, (bool,))), code_dim=self._size("code_dim", 512),
            offset=offset, start=start)
        if not part.fps > 0:
            raise BundleError(f"{self.args_file}: fps: expected more than 0, got {part.fps}", str(self.args_file))
        if part.code_dim % part.groups:
            raise BundleError(f"{self.args_file}: code_dim: expected a multiple of {part.groups} groups, "
                              f"got {part.code_dim}", str(self.args_file))
        return part

    def codebooks(self, part: TokenizerPart) -> FloatArray:
        grouped = self.args["quantizer_name"] == "group_residualvq"
        shape = (1, part.nb_code, part.code_dim // part.groups)
        groups = []
        for group in range(part.groups):
            prefix = f"model.quantizer.rvqs.{group}." if grouped else "model.quantizer."
            books = [self.tensor(f"{prefix}layers.{q}._codebook.embed", shape)[0] for q in range(part.quantizers)]
            if part.shared_codebook:
                if any(not np.array_equal(book, books[0]) for book in books):
                    raise BundleError(f"{self.weights_file}: group {group}: shared_codebook is set, but the "
                                      "quantizers' codebooks differ", str(self.weights_file))
                books = books[:1]
            groups.append(np.stack(books))
        stacked = np.stack(groups)
        stacked.flags.writeable = False
        return stacked

    def build(self, part: TokenizerPart, codebooks: FloatArray) -> _kernels.GrqPart:
        """The kernel with all layers of both networks, named as published."""
        mean, std = self._statistics(part)
        kernel = _kernels.GrqPart(codebooks=codebooks, mean=mean, std=std, quantizers=part.quantizers,
                                  window=part.window, frames=part.window + part.padding, positions=part.positions,
                                  id_offset=part.offset)
        width, stems = self._size("width", 512), self._size("num_conv_layers", 1)
        self._encoder(kernel, part, width, stems)
        self._decoder(kernel, part, width, stems)
        unknown = sorted(name for name in self.state.keys() - self.used if name.rsplit(".", 1)[-1] not in _TRAINING_STATE)
        if unknown:
            raise BundleError(f"{self.weights_file}: {len(unknown)} tensors that {self.args_file.name} does not describe: "
                              + ", ".join(unknown[:5]) + (" ..." if len(unknown) > 5 else ""), str(self.weights_file))
        kernel.finish()
        return kernel

    def _encoder(self, kernel: _kernels.GrqPart, part: TokenizerPart, width: int, stems: int) -> None:
        index = 0  # in the published Sequential, which counts the activations
        for stem in range(stems):
            self._conv(kernel, True, f"{index}", width, width if stem else part.dims, relu=True)
            index += 2
        for _ in range(part.down_t):
            self._conv(kernel, True, f"{index}.0", width, width, kernel_size=4, stride=2)
            self._resnet(kernel, True, f"{index}.1", width)
            index += 1
        self._conv(kernel, True, f"{index}", part.code_dim, width)

    def _decoder(self, kernel: _kernels.GrqPart, part: TokenizerPart, width: int, stems: int) -> None:
        index = 0
        for stem in range(stems):
            self._conv(kernel, False, f"{index}", width, width if stem else part.code_dim, relu=True)
            index += 2
        for _ in range(part.down_t):
            self._resnet(kernel, False, f"{index}.0", width)
            self._conv(kernel, False, f"{index}.2", width, width, upsample=True)
            index += 1
        self._conv(kernel, False, f"{index}", width, width, relu=True)
        self._conv(kernel, False, f"{index + 2}", part.dims, width)

    def _conv(self, kernel: _kernels.GrqPart, encoder: bool, name: str, outputs: int, inputs: int, *,
              kernel_size: int = 3, stride: int = 1, upsample: bool = False, relu: bool = False) -> None:
        prefix = f"model.{'encoder' if encoder else 'decoder'}.model.{name}."
        kernel.add_conv(encoder=encoder, weight=self.tensor(f"{prefix}weight", (outputs, inputs, kernel_size)),
                        bias=self.tensor(f"{prefix}bias", (outputs,)), stride=stride, upsample=upsample, relu=relu)

    def _resnet(self, kernel: _kernels.GrqPart, encoder: bool, name: str, width: int) -> None:
        depth, growth = self._size("depth", 3), self._size("dilation_growth_rate", 3)
        norm = self._choice("norm", None, (None, "LN", "GN", "BN"))
        if norm == "GN" and width % _GROUP_NORM_GROUPS:
            raise BundleError(f"{self.args_file}: width: expected a multiple of {_GROUP_NORM_GROUPS} with norm GN, "
                              f"got {width}", str(self.args_file))
        for block in range(depth):
            prefix = f"model.{'encoder' if encoder else 'decoder'}.model.{name}.model.{block}."
            affine = {} if norm is None else {
                f"{what}{i}": value for i in (1, 2)
                for what, value in zip(("scale", "shift"), self._affine(f"{prefix}norm{i}.", width, norm), strict=True)}
            kernel.add_residual(
                encoder=encoder, dilation=growth ** (depth - 1 - block),  # descending in both networks (upstream)
                weight1=self.tensor(f"{prefix}conv1.weight", (width, width, 3)),
                bias1=self.tensor(f"{prefix}conv1.bias", (width,)),
                weight2=self.tensor(f"{prefix}conv2.weight", (width, width, 1)),
                bias2=self.tensor(f"{prefix}conv2.bias", (width,)),
                activation=str(self._choice("activate", "relu", ("relu", "silu", "gelu"))), norm=_NORMS[norm], **affine)

    def _affine(self, prefix: str, width: int, norm: str | None) -> tuple[FloatArray, FloatArray]:
        """Scale and shift per channel; batch norm's fixed statistics are folded in."""
        scale, shift = self.tensor(f"{prefix}weight", (width,)), self.tensor(f"{prefix}bias", (width,))
        if norm != "BN":
            return scale, shift
        mean, var = self.tensor(f"{prefix}running_mean", (width,)), self.tensor(f"{prefix}running_var", (width,))
        if var.min() < 0:
            raise BundleError(f"{self.weights_file}: {prefix}running_var: expected no negative values, got {var.min()}",
                              str(self.weights_file))
        gain = scale / np.sqrt(var.astype(np.float64) + _BATCH_NORM_EPS)
        return gain.astype(np.float32), (shift - mean * gain).astype(np.float32)

    def tensor(self, name: str, shape: tuple[int, ...]) -> FloatArray:
        if name not in self.state:
            raise BundleError(f"{self.weights_file}: {name}: missing, expected float{list(shape)}",
                              str(self.weights_file))
        value = self.state[name]
        if value.shape != shape or value.dtype.kind != "f":
            raise BundleError(f"{self.weights_file}: {name}: expected float{list(shape)}, "
                              f"got {value.dtype}{list(value.shape)}", str(self.weights_file))
        if not np.isfinite(value).all():
            raise BundleError(f"{self.weights_file}: {name}: holds values that are not finite", str(self.weights_file))
        self.used.add(name)
        return np.ascontiguousarray(value, np.float32)

    def _statistics(self, part: TokenizerPart) -> tuple[FloatArray, FloatArray]:
        meta_file, mask_file = self.folder / "motion_meta.json", self.folder / "meta_mask.json"
        meta = _read_json(meta_file)
        mask = _read_json(mask_file).get("meta_mask") if mask_file.is_file() else None
        found = []
        for key in ("mean", "std"):
            try:
                values = np.asarray(meta[key], np.float64)
                picked = values if mask is None else values[_mask(mask, values.size)]
            except (KeyError, TypeError, ValueError) as error:
                raise BundleError(f"{meta_file}: {key}: expected a list of numbers ({error})", str(meta_file)) from error
            if picked.shape != (part.dims,) or not np.isfinite(picked).all():
                raise BundleError(f"{meta_file}: {key}: expected {part.dims} finite numbers after the mask of "
                                  f"{mask_file.name}, got {list(picked.shape)}", str(meta_file))
            found.append(picked.astype(np.float32))
        return found[0], found[1]

    def _arg(self, key: str, default: Any, kinds: tuple[type, ...]) -> Any:
        value = self.args.get(key, default)
        if not isinstance(value, kinds) or (isinstance(value, bool) and bool not in kinds):
            names = " or ".join("null" if kind is type(None) else kind.__name__ for kind in kinds)
            raise BundleError(f"{self.args_file}: {key}: expected {names}, got {value!r}", str(self.args_file))
        return value

    def _size(self, key: str, default: int, largest: int = 65536) -> int:
        value = int(self._arg(key, default, (int,)))
        if not 1 <= value <= largest:
            raise BundleError(f"{self.args_file}: {key}: expected 1 to {largest}, got {value}", str(self.args_file))
        return value

    def _choice(self, key: str, default: str | None, known: tuple[str | None, ...]) -> str | None:
        value = self.args.get(key, default)
        if value not in known:
            raise BundleError(f"{self.args_file}: {key}: expected one of {', '.join(map(str, known))}, got {value!r}",
                              str(self.args_file))
        return value


def _mask(mask: Any, size: int) -> npt.NDArray[np.bool_]:
    if not isinstance(mask, list) or len(mask) != size or not all(isinstance(x, bool) for x in mask):
        raise ValueError(f"meta_mask: expected {size} booleans")
    return np.asarray(mask)


def _read_json(path: Path) -> dict[str, Any]:
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise BundleError(f"{path}: no such file", str(path)) from None
    except (OSError, ValueError, RecursionError) as error:
        raise BundleError(f"{path}: not readable as JSON ({error})", str(path)) from error
    if not isinstance(content, dict):
        raise BundleError(f"{path}: expected an object, got {type(content).__name__}", str(path))
    return content


def _read_weights(folder: Path) -> tuple[Path, State]:
    names = [f"{stem}{suffix}" for stem in _WEIGHT_STEMS for suffix in (".safetensors", ".pth")]
    for path in (folder / name for name in names):
        if path.is_file():
            break
    else:
        raise BundleError(f"{folder}: expected one of {', '.join(names)}, found none of them", str(folder))
    if path.suffix == ".safetensors":
        try:
            return path, safetensors.numpy.load_file(path)
        except (safetensors.SafetensorError, KeyError, ValueError, OSError) as error:
            raise BundleError(f"{path}: not a readable safetensors file ({error})", str(path)) from error
    content = safe_pickle.load_torch(path)
    state = content.get("net") if isinstance(content, dict) else None
    if not isinstance(state, dict) or not all(isinstance(value, np.ndarray) for value in state.values()):
        raise BundleError(f"{path}: expected a dictionary with the tensors under 'net', got "
                          f"{sorted(map(str, content))[:5] if isinstance(content, dict) else type(content).__name__}",
                          str(path))
    return path, {str(name): value for name, value in state.items()}
