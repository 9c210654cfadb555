"""What the documents say must be there: links, pictures, commands, and the table that was measured."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest

from beingh0_edge.firmware_bridge import HANDS
from beingh0_edge.firmware_bridge.hands import describe
from beingh0_edge.train import evaluate_nano

ROOT = Path(__file__).parents[2]
FIGURES = ROOT / "docs" / "results" / "nano_eval.json"  # written by `beingh0 eval nano --json`
DOCUMENTS = [ROOT / name for name in ("README.md", "CONTRIBUTING.md", "CHANGELOG.md")] + sorted(
    (ROOT / "docs").glob("*.md"))


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda path: path.relative_to(ROOT).as_posix())
def test_every_relative_link_leads_somewhere(document):
    links = re.findall(r"\]\(([^)#]+)(?:#[^)]*)?\)", document.read_text())
    for link in links:
        if "://" in link:
            continue
        assert (document.parent / link).exists(), link


def test_every_command_in_the_readme_exists():
    from beingh0_edge.cli.app import command

    group = command()
    for line in re.findall(r"beingh0 ((?:[a-z]+ ?)+)", re.sub(r"```python.*?```", "", (ROOT / "README.md").read_text(),
                                                                flags=re.DOTALL)):
        words = line.split()
        assert words[0] in group.commands, line
        inner = group.commands[words[0]]
        if len(words) > 1 and hasattr(inner, "commands"):
            assert words[1] in inner.commands, line


def test_every_hand_of_the_bridge_is_in_the_table_of_the_readme():
    readme = (ROOT / "README.md").read_text()
    rows = "\n".join(line for line in readme.splitlines() if line.startswith("| ") and "`sim:" in line)
    assert [name for name in HANDS if f"`{name}`" not in rows or f"`sim:{name}`" not in rows] == []


def test_the_page_about_the_hands_is_what_their_table_prints():
    assert (ROOT / "docs" / "robot_hands.md").read_text() == describe.markdown(), f"python -m {describe.__name__}"


def test_the_table_of_the_readme_is_the_measured_one():
    results = [evaluate_nano.Result.of(row) for row in json.loads(FIGURES.read_text())["rows"]]
    assert evaluate_nano.markdown(results) in (ROOT / "README.md").read_text()
