"""The compiled module as a whole: instruction sets, and the stub that describes it."""

import ast
import os
import subprocess
import sys
from pathlib import Path

import pytest

import beingh0_edge
from beingh0_edge import _kernels

ROOT = Path(__file__).parents[2]
STUB = Path(beingh0_edge.__file__).parent / "_kernels.pyi"
GOLDENS = [str(ROOT / "tests" / "golden" / f"test_{name}_golden.py") for name in ("tokenizer", "mano", "rotations")]


def run(isa: str, *arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run([sys.executable, *arguments], env=os.environ | {"BEINGH0_ISA": isa}, cwd=ROOT,
                          capture_output=True, text=True, check=False)


@pytest.mark.parametrize("isa", [isa for isa in _kernels.available_isas() if isa != _kernels.isa()])
def test_goldens_hold_on_every_instruction_set_of_this_machine(isa: str) -> None:
    here = str(Path(GOLDENS[0]).parent)  # without the outer conftest, which imports much
    done = run(isa, "-m", "pytest", "-q", "-p", "no:cacheprovider", "--confcutdir", here, *GOLDENS)
    assert done.returncode == 0, done.stdout[-2000:]
    assert run(isa, "-c", "from beingh0_edge import _kernels; print(_kernels.isa())").stdout == f"{isa}\n"


def test_an_instruction_set_this_machine_lacks_stops_the_import() -> None:
    done = run("mmx", "-c", "import beingh0_edge._kernels")
    assert done.returncode != 0
    assert f"BEINGH0_ISA: this machine runs {', '.join(_kernels.available_isas())}; got mmx" in done.stderr


def test_the_stub_names_exactly_what_the_module_has() -> None:
    def public(names: list[str]) -> set[str]:
        return {name for name in names if not name.startswith("_")}

    described: dict[str, set[str] | None] = {}
    for node in ast.parse(STUB.read_text()).body:
        if isinstance(node, ast.FunctionDef):
            described[node.name] = None
        elif isinstance(node, ast.ClassDef):
            described[node.name] = public([n.name for n in node.body if isinstance(n, ast.FunctionDef)])
    assert described.keys() == public(dir(_kernels))
    for name, methods in described.items():
        if methods is not None:
            assert methods == public(dir(getattr(_kernels, name)))


def test_the_stub_names_every_argument() -> None:
    for node in ast.walk(ast.parse(STUB.read_text())):
        if not isinstance(node, ast.FunctionDef):
            continue
        owner = next((c for c in ast.parse(STUB.read_text()).body if isinstance(c, ast.ClassDef)
                      and any(isinstance(n, ast.FunctionDef) and ast.dump(n) == ast.dump(node) for n in c.body)), None)
        target = getattr(getattr(_kernels, owner.name) if owner else _kernels, node.name)
        for argument in [a.arg for a in (*node.args.args, *node.args.kwonlyargs) if a.arg != "self"]:
            assert f"{argument}:" in target.__doc__, f"{node.name}: {argument}"
