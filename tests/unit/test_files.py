"""Folders that take another's place whole or not at all."""

from pathlib import Path

import pytest

from beingh0_edge.files import replace_folder


@pytest.fixture
def folders(tmp_path: Path) -> tuple[Path, Path]:
    """(new, out), each with a file that says which it is."""
    for name in ("new", "out"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "which.txt").write_text(name)
    return tmp_path / "new", tmp_path / "out"


def test_a_new_folder_takes_the_place_of_the_old(folders: tuple[Path, Path]) -> None:
    new, out = folders
    replace_folder(new, out)
    assert (out / "which.txt").read_text() == "new"
    assert list(out.parent.iterdir()) == [out]


@pytest.mark.parametrize("renames_before", [0, 1])
def test_the_old_folder_is_back_if_it_is_interrupted(folders: tuple[Path, Path], renames_before: int,
                                                     monkeypatch: pytest.MonkeyPatch) -> None:
    new, out = folders
    rename, done = Path.rename, 0

    def interrupt(self: Path, target: Path) -> Path:
        nonlocal done
        done += 1
        if done == renames_before + 1:
            raise KeyboardInterrupt
        return rename(self, target)

    monkeypatch.setattr(Path, "rename", interrupt)
    with pytest.raises(KeyboardInterrupt):
        replace_folder(new, out)
    assert (out / "which.txt").read_text() == "out"
    assert (new / "which.txt").read_text() == "new"
    assert sorted(out.parent.iterdir()) == [new, out]
