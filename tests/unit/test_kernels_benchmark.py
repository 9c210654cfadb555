"""The pages of the kernels' benchmark say what was measured."""

import json
import re
from pathlib import Path

import pytest

DOCS = Path(__file__).parents[2] / "docs"


@pytest.mark.parametrize("name", ["kernels", "kernels_avx2"])
def test_the_page_says_what_was_measured(name: str) -> None:
    page = (DOCS / f"{name}.md").read_text()
    result = json.loads((DOCS / "results" / f"{name}.json").read_text())
    table, measured = page.split("## Against the targets")[1].split("\n## ", 1)
    lines = [f"| {goal['what']} | {goal['wanted']} | {goal['reached']} | "
             f"{'holds' if goal['holds'] else '**misses**'} |" for goal in result["targets"]]
    assert lines == [line for line in table.splitlines() if re.match(r"\| .*(holds|misses)", line)]
    rows = [f"| {row['batch']} | {row['who']} | {row['best_us']:.2f} | {row['median_us']:.2f} | {row['p99_us']:.2f} | "
            for row in sorted(result["rows"], key=lambda row: page.index(f"\n## {row['what']}\n"))]
    shown = [line for line in measured.splitlines() if re.match(r"\| \d", line)]
    assert len(shown) == len(rows) > 50
    assert all(line.startswith(row) for line, row in zip(shown, rows, strict=True))
    assert f"![Times against bounds](images/{name}.png)" in page
    assert (DOCS / "images" / f"{name}.png").is_file()
