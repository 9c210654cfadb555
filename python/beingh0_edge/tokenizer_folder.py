"""Published motion tokenizer folders: read, checked and handed to the kernels layer by layer."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, Protocol

import numpy as np
import numpy.typing as npt
import safetensors
import safetensors.numpy

from beingh0_edge import _kernels, safe_pickle
from beingh0_edge.errors import BundleError
from beingh0_edge.features import part_dims
from beingh0_edge.files import read_json
from beingh0_edge.tokens import PartLayout
from beingh0_edge.types import FloatArray

State = dict[str, npt.NDArray[Any]]
Weights = Literal["float32", "bfloat16", "int8"]

# Upstream's search order; of one name the safetensors file is preferred, as it cannot hold code.
_WEIGHT_STEMS = ("overfit", "net_best_mpjpe", "net_best_mpjpe_labeling")
_NORMS = {None: "none", "LN": "layer", "GN": "group", "BN": "affine"}
_BATCH_NORM_EPS = 1e-6
_GROUP_NORM_GROUPS = 32
_LARGEST_DILATION = 1 << 20  # far beyond any window
_LARGEST_WINDOW = 4096
_MOST = 64  # layers, groups or quantizers; far beyond any model, and soon listed
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
    def unit(self) -> int:
        """Frames per latent frame."""
        return 1 << self.down_t

    @property
    def padding(self) -> int:
        """Frames of zeros appended before encoding; a whole unit if the window is a multiple of it (upstream)."""
        return self.unit - self.window % self.unit

    @property
    def positions(self) -> int:
        """Latent frames."""
        return (self.window + self.padding) // self.unit

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


class Layers(Protocol):
    """Who takes a network's layers: the kernel, or whoever writes them down in another form.

    A convolution pads with zeros to keep its length (halved by stride 2, doubled before it by `upsample`). A residual
    block is x + conv2(act(norm2(conv1(act(norm1(x)))))).
    """

    def add_conv(self, *, encoder: bool, weight: FloatArray, bias: FloatArray, stride: int, upsample: bool,
                 relu: bool) -> None: ...

    def add_residual(self, *, encoder: bool, dilation: int, weight1: FloatArray, bias1: FloatArray,
                     weight2: FloatArray, bias2: FloatArray, activation: str, norm: str,
                     scale1: FloatArray | None = ..., shift1: FloatArray | None = ..., scale2: FloatArray | None = ...,
                     shift2: FloatArray | None = ...) -> None: ...


Tensors = Callable[[str, tuple[int, ...]], FloatArray]
"""Gives the tensor of a name and shape."""


class _NoLayers:
    def add_conv(self, **_: Any) -> None:
        pass

    def add_residual(self, **_: Any) -> None:
        pass


class MotionArgs:
    """motion_args.json, with the published defaults: the geometry and the networks of a part.

    Whatever is wrong with it raises a BundleError that names `file`.
    """

    def __init__(self, values: dict[str, Any], file: Path) -> None:
        self.values, self.file = values, file

    def geometry(self, offset: int, start: int) -> TokenizerPart:
        name = self._arg("use_part", None, (type(None), str)) or "whole"
        feature = str(self._arg("motion_feat", "smpl263", (str,)))
        try:
            dims = part_dims(feature, name)
        except ValueError as error:
            raise BundleError(f"{self.file}: {error}", str(self.file)) from error
        for key, only in (("stride_t", 2), ("output_emb_width", self._size("code_dim", 512))):
            if self._size(key, only) != only:
                raise BundleError(f"{self.file}: {key}: expected {only}, got {self.values[key]}",
                                  str(self.file))
        quantizer = self._choice("quantizer_name", None, ("group_residualvq", "residualvq"))
        part = TokenizerPart(
            name=name, feature=feature, dims=dims, window=self._size("window_size", 64, largest=_LARGEST_WINDOW),
            fps=float(self._arg("fps", 20, (int, float))), down_t=self._size("down_t", 2, largest=8),
            groups=self._size("num_quant_groups", 2, largest=_MOST) if quantizer == "group_residualvq" else 1,
            quantizers=self._size("num_quantizers", 8, largest=_MOST), nb_code=self._size("nb_code", 512),
            shared_codebook=bool(self._arg("shared_codebook", False, (bool,))), code_dim=self._size("code_dim", 512),
            offset=offset, start=start)
        if not 0 < part.fps < np.inf:
            raise BundleError(f"{self.file}: fps: expected more than 0, got {part.fps}", str(self.file))
        depth, growth = self._size("depth", 3, largest=_MOST), self._size("dilation_growth_rate", 3)
        if growth ** (depth - 1) > _LARGEST_DILATION:
            raise BundleError(f"{self.file}: dilation_growth_rate: {growth} to the power of {depth - 1} is more "
                              f"than the largest dilation, {_LARGEST_DILATION}", str(self.file))
        width = self._size("width", 512)
        if self.values.get("norm") == "GN" and width % _GROUP_NORM_GROUPS:
            raise BundleError(f"{self.file}: width: expected a multiple of {_GROUP_NORM_GROUPS} with norm GN, "
                              f"got {width}", str(self.file))
        if part.code_dim % part.groups:
            raise BundleError(f"{self.file}: code_dim: expected a multiple of {part.groups} groups, "
                              f"got {part.code_dim}", str(self.file))
        return part

    def codebook(self, group: int, quantizer: int) -> str:
        """The name of its tensor."""
        grouped = f"rvqs.{group}." if self.values["quantizer_name"] == "group_residualvq" else ""
        return f"model.quantizer.{grouped}layers.{quantizer}._codebook.embed"

    def tensor_shapes(self, part: TokenizerPart) -> dict[str, tuple[int, ...]]:
        """Name and shape of every tensor that a part needs."""
        shapes: dict[str, tuple[int, ...]] = {}

        def record(name: str, shape: tuple[int, ...]) -> FloatArray:
            shapes[name] = shape
            return np.broadcast_to(np.float32(1), shape)  # of no size in memory

        self.networks(part, record, _NoLayers())
        book = (1, part.nb_code, part.code_dim // part.groups)
        return shapes | {self.codebook(group, q): book for group in range(part.groups) for q in range(part.quantizers)}

    def networks(self, part: TokenizerPart, tensor: Tensors, into: Layers) -> None:
        """Both networks, layer by layer from the input on: first the encoder's, then the decoder's."""
        width, stems = self._size("width", 512), self._size("num_conv_layers", 1, largest=_MOST)
        self._encoder(into, tensor, part, width, stems)
        self._decoder(into, tensor, part, width, stems)

    def _encoder(self, kernel: Layers, tensor: Tensors, part: TokenizerPart, width: int, stems: int) -> None:
        index = 0  # in the published Sequential, which counts the activations
        for stem in range(stems):
            self._conv(kernel, tensor, True, f"{index}", width, width if stem else part.dims, relu=True)
            index += 2
        for _ in range(part.down_t):
            self._conv(kernel, tensor, True, f"{index}.0", width, width, kernel_size=4, stride=2)
            self._resnet(kernel, tensor, True, f"{index}.1", width)
            index += 1
        self._conv(kernel, tensor, True, f"{index}", part.code_dim, width)

    def _decoder(self, kernel: Layers, tensor: Tensors, part: TokenizerPart, width: int, stems: int) -> None:
        index = 0
        for stem in range(stems):
            self._conv(kernel, tensor, False, f"{index}", width, width if stem else part.code_dim, relu=True)
            index += 2
        for _ in range(part.down_t):
            self._resnet(kernel, tensor, False, f"{index}.0", width)
            self._conv(kernel, tensor, False, f"{index}.2", width, width, upsample=True)
            index += 1
        self._conv(kernel, tensor, False, f"{index}", width, width, relu=True)
        self._conv(kernel, tensor, False, f"{index + 2}", part.dims, width)

    @staticmethod
    def _conv(kernel: Layers, tensor: Tensors, encoder: bool, name: str, outputs: int, inputs: int, *,
              kernel_size: int = 3, stride: int = 1, upsample: bool = False, relu: bool = False) -> None:
        prefix = f"model.{'encoder' if encoder else 'decoder'}.model.{name}."
        kernel.add_conv(encoder=encoder, weight=tensor(f"{prefix}weight", (outputs, inputs, kernel_size)),
                        bias=tensor(f"{prefix}bias", (outputs,)), stride=stride, upsample=upsample, relu=relu)

    def _resnet(self, kernel: Layers, tensor: Tensors, encoder: bool, name: str, width: int) -> None:
        depth, growth = self._size("depth", 3), self._size("dilation_growth_rate", 3)
        norm = self._choice("norm", None, (None, "LN", "GN", "BN"))
        for block in range(depth):
            prefix = f"model.{'encoder' if encoder else 'decoder'}.model.{name}.model.{block}."
            affine = {} if norm is None else {
                f"{what}{i}": value for i in (1, 2)
                for what, value in zip(("scale", "shift"), _affine(tensor, f"{prefix}norm{i}.", width, norm),
                                       strict=True)}
            kernel.add_residual(
                encoder=encoder, dilation=growth ** (depth - 1 - block),  # descending in both networks (upstream)
                weight1=tensor(f"{prefix}conv1.weight", (width, width, 3)),
                bias1=tensor(f"{prefix}conv1.bias", (width,)),
                weight2=tensor(f"{prefix}conv2.weight", (width, width, 1)),
                bias2=tensor(f"{prefix}conv2.bias", (width,)),
                activation=str(self._choice("activate", "relu", ("relu", "silu", "gelu"))), norm=_NORMS[norm], **affine)

    def _arg(self, key: str, default: Any, kinds: tuple[type, ...]) -> Any:
        value = self.values.get(key, default)
        if not isinstance(value, kinds) or (isinstance(value, bool) and bool not in kinds):
            names = " or ".join("null" if kind is type(None) else kind.__name__ for kind in kinds)
            raise BundleError(f"{self.file}: {key}: expected {names}, got {value!r}", str(self.file))
        return value

    def _size(self, key: str, default: int, largest: int = 65536) -> int:
        value = int(self._arg(key, default, (int,)))
        if not 1 <= value <= largest:
            raise BundleError(f"{self.file}: {key}: expected 1 to {largest}, got {value}", str(self.file))
        return value

    def _choice(self, key: str, default: str | None, known: tuple[str | None, ...]) -> str | None:
        value = self.values.get(key, default)
        if value not in known:
            raise BundleError(f"{self.file}: {key}: expected one of {', '.join(map(str, known))}, got {value!r}",
                              str(self.file))
        return value


def _affine(tensor: Tensors, prefix: str, width: int, norm: str | None) -> tuple[FloatArray, FloatArray]:
    """Scale and shift per channel; batch norm's fixed statistics are folded in."""
    scale, shift = tensor(f"{prefix}weight", (width,)), tensor(f"{prefix}bias", (width,))
    if norm != "BN":
        return scale, shift
    mean, var = tensor(f"{prefix}running_mean", (width,)), tensor(f"{prefix}running_var", (width,))
    if var.min() < 0:
        raise ValueError(f"{prefix}running_var: expected no negative values, got {var.min()}")
    gain = scale / np.sqrt(var.astype(np.float64) + _BATCH_NORM_EPS)
    return gain.astype(np.float32), (shift - mean * gain).astype(np.float32)


class TokenizerFolder:
    """One part's files, read and checked."""

    def __init__(self, folder: Path) -> None:
        if not folder.is_dir():
            raise BundleError(f"{folder}: no such folder", str(folder))
        self.folder = folder
        args_file = folder / "motion_args.json"
        self.args = MotionArgs(read_json(args_file), args_file)
        self.weights_file, self.state = _read_weights(folder)

    def geometry(self, offset: int, start: int) -> TokenizerPart:
        """Raises BundleError, also listing every tensor that is missing, unknown, misshapen or not finite."""
        part = self.args.geometry(offset, start)
        expected, problems = self.args.tensor_shapes(part), []
        for name, shape in expected.items():
            value, wanted = self.state.get(name), f"float{list(shape)}"
            if value is None:
                problems.append(f"{name}: missing, expected {wanted}")
            elif value.shape != shape or value.dtype.kind != "f":
                problems.append(f"{name}: expected {wanted}, got {value.dtype}{list(value.shape)}")
            elif not np.isfinite(value).all():
                problems.append(f"{name}: holds values that are not finite")
        unknown = sorted(name for name in self.state.keys() - expected.keys()
                         if name.rsplit(".", 1)[-1] not in _TRAINING_STATE)
        if unknown:
            problems.append(f"{len(unknown)} tensors that {self.args.file.name} does not describe: "
                            f"{', '.join(unknown)}")
        if problems:
            raise BundleError(f"{self.weights_file}: " + "\n  ".join(problems), str(self.weights_file))
        return part

    def tensor(self, name: str, shape: tuple[int, ...]) -> FloatArray:
        """A tensor that `geometry` has seen, float32."""
        return np.ascontiguousarray(self.state[name], np.float32)

    def codebooks(self, part: TokenizerPart) -> FloatArray:
        """float32[groups, 1 if shared else quantizers, nb_code, code_dim / groups], read-only."""
        groups = []
        for group in range(part.groups):
            books = [self.tensor(self.args.codebook(group, q), ())[0] for q in range(part.quantizers)]
            if part.shared_codebook:
                if any(not np.array_equal(book, books[0]) for book in books):
                    raise BundleError(f"{self.weights_file}: group {group}: shared_codebook is set, but the "
                                      "quantizers' codebooks differ", str(self.weights_file))
                books = books[:1]
            groups.append(np.stack(books))
        stacked = np.stack(groups)
        stacked.flags.writeable = False
        return stacked

    def build(self, part: TokenizerPart, codebooks: FloatArray, weights: Weights = "float32") -> _kernels.GrqPart:
        """The kernel with all layers of both networks, named as published."""
        mean, std = self.statistics(part)
        kernel = _kernels.GrqPart(codebooks=codebooks, mean=mean, std=std, quantizers=part.quantizers,
                                  window=part.window, frames=part.window + part.padding, positions=part.positions,
                                  id_offset=part.offset, weights=weights)
        self.networks(part, kernel)
        kernel.finish()
        return kernel

    def networks(self, part: TokenizerPart, into: Layers) -> None:
        """See MotionArgs."""
        try:
            self.args.networks(part, self.tensor, into)
        except ValueError as error:
            raise BundleError(f"{self.weights_file}: {error}", str(self.weights_file)) from error

    def statistics(self, part: TokenizerPart) -> tuple[FloatArray, FloatArray]:
        meta_file, mask_file = self.folder / "motion_meta.json", self.folder / "meta_mask.json"
        meta = read_json(meta_file)
        mask = read_json(mask_file).get("meta_mask") if mask_file.is_file() else None
        found = []
        for key in ("mean", "std"):
            try:
                values = np.asarray(meta[key], np.float64)
                picked = values if mask is None else values[_mask(mask, values.size)]
            except (KeyError, TypeError, ValueError) as error:
                message = f"{meta_file}: {key}: expected a list of numbers, as long as {mask_file.name}'s ({error})"
                raise BundleError(message, str(meta_file)) from error
            if picked.shape != (part.dims,) or not np.isfinite(picked).all():
                raise BundleError(f"{meta_file}: {key}: expected {part.dims} finite numbers after the mask of "
                                  f"{mask_file.name}, got {list(picked.shape)}", str(meta_file))
            found.append(picked.astype(np.float32))
        return found[0], found[1]


def _mask(mask: Any, size: int) -> npt.NDArray[np.bool_]:
    if not isinstance(mask, list) or len(mask) != size or not all(isinstance(x, bool) for x in mask):
        raise ValueError(f"meta_mask: expected {size} booleans")
    return np.asarray(mask)


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
