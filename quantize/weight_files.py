"""Which files of a checkpoint folder hold its tensors."""

from __future__ import annotations

from pathlib import Path

from beingh0_edge.errors import BundleError
from beingh0_edge.files import read_json

from .tensor_files import SafetensorsFile, TensorFile
from .torch_file import TorchFile


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
        names = read_json(index)["weight_map"]
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
