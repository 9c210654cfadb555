"""Files and folders that appear whole or not at all."""

from __future__ import annotations

import json
import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from .errors import BundleError

PACKAGED = ("nano",)  # bundles that come with the package


def packaged(given: str | Path) -> Path:
    """The folder of the packaged bundle of that name, else `given` itself."""
    return Path(__file__).parent / "assets" / given if given in PACKAGED else Path(given)


@contextmanager
def staged(out: Path) -> Iterator[Path]:
    """A temporary folder near `out`. Its files move into `out` when the block ends well, else it vanishes.

    Files of the same name in `out` are replaced, others stay. Raises ValueError if `out` cannot be a folder.
    """
    home = out
    while not home.exists():
        if home.is_symlink():
            raise ValueError(f"{out}: expected a folder to write to, but {home} is a link to nothing")
        home = home.parent
    if not home.is_dir():
        raise ValueError(f"{out}: expected a folder to write to, but {home} is a file")
    if not os.access(home, os.W_OK | os.X_OK):
        raise ValueError(f"{out}: no permission to write in {home}")
    try:
        stage = Path(tempfile.mkdtemp(prefix=".beingh0-", suffix=".partial", dir=home))
    except OSError as error:
        raise ValueError(f"{out}: cannot write in {home} ({error.strerror})") from error
    try:
        yield stage
        out.mkdir(parents=True, exist_ok=True)
        for path in stage.iterdir():  # before the first one is moved
            if (out / path.name).is_dir():
                raise ValueError(f"{out / path.name}: expected a file to replace, got a folder")
        for path in sorted(stage.iterdir()):
            path.replace(out / path.name)
    finally:
        shutil.rmtree(stage, ignore_errors=True)


def read_json(path: Path) -> dict[str, Any]:
    """The object in a JSON file. Raises BundleError naming the file."""
    try:
        content = json.loads(path.read_bytes())
    except FileNotFoundError:
        raise BundleError(f"{path}: no such file", str(path)) from None
    except (OSError, ValueError, RecursionError) as error:
        raise BundleError(f"{path}: not readable as JSON ({error})", str(path)) from error
    if not isinstance(content, dict):
        raise BundleError(f"{path}: expected an object, got {type(content).__name__}", str(path))
    return content


def write_json(path: Path, value: Any) -> None:
    """`value` as JSON under a temporary name, then renamed. NaN and infinity are refused (ValueError)."""
    text = json.dumps(value, indent=1, ensure_ascii=False, allow_nan=False) + "\n"
    handle, temporary = tempfile.mkstemp(prefix=f".{path.name}-", suffix=".partial", dir=path.parent)
    try:
        with os.fdopen(handle, "w", encoding="utf-8") as file:
            file.write(text)
        os.chmod(temporary, 0o644)
        os.replace(temporary, path)
    except BaseException:
        os.unlink(temporary)
        raise


def replace_folder(new: Path, out: Path) -> None:
    """Renames the finished folder `new` to `out`. What lay there is removed once `new` is in its place, not before."""
    if not out.exists():
        new.rename(out)
        return
    aside = Path(tempfile.mkdtemp(prefix=".beingh0-", suffix=".old", dir=out.parent))
    try:
        out.rename(aside / out.name)
        new.rename(out)
    except BaseException:
        if not out.exists():
            (aside / out.name).rename(out)
        raise
    finally:
        shutil.rmtree(aside)


def check_file_target(path: Path) -> None:
    """Raises ValueError now rather than after an hour of work if `path` cannot be written."""
    folder = path.parent
    if path.is_dir():
        raise ValueError(f"{path}: expected a file to write, got a folder")
    if not folder.is_dir():
        raise ValueError(f"{path}: the folder {folder} does not exist")
    if not os.access(folder, os.W_OK | os.X_OK):
        raise ValueError(f"{path}: no permission to write in {folder}")
