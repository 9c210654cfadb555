"""The special tokens of a checkpoint: found by their strings in its tokenizer, never assumed."""

from __future__ import annotations

import shutil
from dataclasses import asdict
from pathlib import Path

from beingh0_edge import prompt
from beingh0_edge.bundle import TokenSpec
from beingh0_edge.errors import BundleError
from beingh0_edge.files import read_json
from beingh0_edge.prompt import TextTokenizer

from .config import ModelConfig
from .text_tokenizer import has_slow_files, write_tokenizer


def find_tokens(folder: Path, config: ModelConfig, out: Path) -> tuple[TokenSpec, Path | None]:
    """The special ids, and the tokenizer.json they came from as a copy in `out`.

    A checkpoint without any tokenizer may carry ids.json (in its folder or the one above), which names the
    ids only; its bundle then works on ids and cannot read text.
    Raises  BundleError listing every token that is missing, or has no row in the model's embedding.
    """
    action_chunks, rows = config.robot.chunk_length if config.robot else 0, config.language.vocabulary
    path = folder / "tokenizer.json"
    if path.is_file() or has_slow_files(folder):
        if path.is_file():
            tokenizer = TextTokenizer(path)
            shutil.copyfile(path, out / path.name)
        else:
            write_tokenizer(folder, out / path.name)
            tokenizer = TextTokenizer(out / path.name)
        _refuse_beyond(tokenizer.ids(), rows, folder)
        return _from_tokenizer(tokenizer, action_chunks, folder), out / path.name
    for ids in (folder / "ids.json", folder.parent / "ids.json"):
        if ids.is_file():
            spec = _from_ids(ids, action_chunks)
            named = {name: value for name, value in asdict(spec).items() if isinstance(value, int)}
            del named["motion_ids"]  # a number of ids, not one
            _refuse_beyond(named | {f"action chunk {i}": n for i, n in enumerate(spec.action_chunks)}, rows, ids)
            return spec, None
    raise BundleError(f"{folder}: no tokenizer; expected tokenizer.json, or vocab.json and merges.txt", str(folder))


def _refuse_beyond(ids: dict[str, int], rows: int, source: Path) -> None:
    if beyond := sorted((i, token) for token, i in ids.items() if not 0 <= i < rows):
        named = ", ".join(f"{token} {i}" for i, token in beyond[:10])
        raise BundleError(f"{source}: {len(beyond)} token ids without a row in the model's embedding of {rows} rows: "
                          f"{named}{', ...' if len(beyond) > 10 else ''}", str(source))


def _from_tokenizer(tokenizer: TextTokenizer, action_chunks: int, folder: Path) -> TokenSpec:
    required = [prompt.END, prompt.MOT, prompt.MOT_END, prompt.IMG, prompt.IMG_END, prompt.IMG_CONTEXT,
                prompt.motion_id(0), *map(prompt.action_chunk, range(action_chunks))]
    if action_chunks:
        required.append(prompt.PROP_CONTEXT)
    ids = {token: tokenizer.id_of(token) for token in required}
    if missing := [token for token, i in ids.items() if i is None]:
        raise BundleError(f"{folder}: the tokenizer lacks {', '.join(missing)}", str(folder))
    found = {token: i for token, i in ids.items() if i is not None}
    count = 0
    while (i := tokenizer.id_of(prompt.motion_id(count))) is not None:
        if i != found[prompt.MOT] + 1 + count:
            raise BundleError(
                f"{folder}: expected id {found[prompt.MOT] + 1 + count} for {prompt.motion_id(count)}, "
                f"got {i}; motion ids must follow <mot> one by one",
                str(folder),
            )
        count += 1
    return TokenSpec(
        eos=found[prompt.END], mot=found[prompt.MOT], mot_end=found[prompt.MOT_END],
        noop=tokenizer.id_of(prompt.MOT_NOOP), motion_ids=count, img_context=found[prompt.IMG_CONTEXT],
        prop_context=tokenizer.id_of(prompt.PROP_CONTEXT),
        action_chunks=tuple(found[prompt.action_chunk(i)] for i in range(action_chunks)))


def _from_ids(path: Path, action_chunks: int) -> TokenSpec:
    try:
        data = read_json(path)
        ids = {str(token): int(i) for token, i in data["token_ids"].items()}
        first = int(data["action_chunk_0"]) if action_chunks else 0
        if int(data["motion_id_0"]) != ids[prompt.MOT] + 1:
            raise ValueError(f"motion_id_0: expected {ids[prompt.MOT] + 1}, got {data['motion_id_0']}")
        return TokenSpec(
            eos=int(data["eos_token_id"]), mot=ids[prompt.MOT], mot_end=ids[prompt.MOT_END],
            noop=ids.get(prompt.MOT_NOOP), motion_ids=int(data["num_motion_ids"]),
            img_context=ids[prompt.IMG_CONTEXT], prop_context=ids.get(prompt.PROP_CONTEXT),
            action_chunks=tuple(range(first, first + action_chunks)))
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise BundleError(f"{path}: not a list of token ids ({error!r})", str(path)) from error
