"""Who may import whom, and that the runtime needs no torch."""

import ast
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
RUNTIME = ROOT / "python" / "beingh0_edge"
OUTER = {"train": ROOT / "train", "quantize": ROOT / "quantize", "firmware_bridge": ROOT / "firmware_bridge"}

# Runtime modules and what of our own they may import; a module that is not listed may import any runtime
# module.
INNER = {
    "types": set(),
    "errors": set(),
    "files": {"errors"},
    "gguf_header": {"errors"},
    "tokens": {"errors", "types"},
    "prompt": {"errors", "types"},
    "preprocess": {"types"},
    "bundle": {"errors", "files", "gguf_header", "preprocess", "tokens"},
    "backbone_gguf": {"bundle", "errors", "types"},
    "vision_onnx": {"bundle", "errors", "types"},
    "backbone": {"backbone_gguf", "bundle", "errors", "tokens", "types", "vision_onnx"},
    "robot": {"bundle", "errors", "types"},
    "motion": {"types"},
}
# The command ties everything together; training ends by writing a bundle.
MAY_REACH = {"cli": {"train", "quantize", "firmware_bridge"}, "__main__": {"cli"}, "train": {"quantize"}}


def imported(path: Path, package: str) -> set[str]:
    """Modules below beingh0_edge that the file imports, also inside functions; first name only."""
    found: set[str] = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            base = node.module or ""
            if node.level:
                parents = package.split(".")
                base = ".".join([*parents[: len(parents) - node.level + 1], *filter(None, [base])])
            names = [f"{base}.{alias.name}" for alias in node.names] if base == "beingh0_edge" else [base]
        else:
            continue
        found |= {name.split(".")[1] for name in names if name.startswith("beingh0_edge.")}
    return found


def runtime_files() -> list[Path]:
    return [path for path in sorted(RUNTIME.rglob("*.py"))
            if path.relative_to(RUNTIME).parts[0] not in OUTER and path != RUNTIME / "__init__.py"]


@pytest.mark.parametrize("path", runtime_files(), ids=lambda p: p.relative_to(RUNTIME).as_posix())
def test_runtime_modules_import_inward_only(path: Path) -> None:
    relative = path.relative_to(RUNTIME)
    module = relative.parts[0].removesuffix(".py")
    package = ".".join(["beingh0_edge", *relative.parent.parts])
    names = imported(path, package) - {"_kernels", "__version__"}
    if module in INNER:
        assert names <= INNER[module]
    assert not names & (set(OUTER) - MAY_REACH.get(module, set()))
    if module not in ("cli", "__main__"):
        assert "cli" not in names


@pytest.mark.parametrize("path", sorted(OUTER["firmware_bridge"].rglob("*.py")), ids=lambda p: p.name)
def test_a_hand_runs_without_any_model(path: Path) -> None:
    package = ".".join(["beingh0_edge", *path.relative_to(ROOT).parent.parts])
    assert imported(path, package) <= {"types", "errors", "firmware_bridge"}


@pytest.mark.parametrize("outer", ["train", "quantize"])
def test_the_outer_folders_keep_apart(outer: str) -> None:
    for path in sorted(OUTER[outer].rglob("*.py")):
        package = ".".join(["beingh0_edge", *path.relative_to(ROOT).parent.parts])
        others = set(OUTER) - {outer} - MAY_REACH.get(outer, set())
        assert not imported(path, package) & (others | {"cli"}), path


def run(code: str) -> str:
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_importing_the_runtime_leaves_torch_out() -> None:
    code = ("import sys, beingh0_edge\n"
            "for name in beingh0_edge.__all__: getattr(beingh0_edge, name)\n"
            "import beingh0_edge.cli, beingh0_edge.quantize\n"
            "print(sorted({'torch', 'transformers', 'gguf', 'onnx'} & set(sys.modules)))")
    assert run(code).strip() == "[]"


def test_the_bare_import_loads_nothing_heavy() -> None:
    code = "import sys, beingh0_edge; print(sorted({'numpy', 'cv2', 'llama_cpp'} & set(sys.modules)))"
    assert run(code).strip() == "[]"


def test_onnx_runtime_reports_nothing_unless_asked_to(tmp_path: Path) -> None:
    """It keeps a device id for that below the home folder; versions before 1.32 report nothing anyway."""
    code = (f"import os; os.environ['HOME'] = {str(tmp_path)!r}; os.environ.pop('ORT_DISABLE_TELEMETRY', None)\n"
            "import beingh0_edge, onnxruntime")
    run(code)
    assert list(tmp_path.rglob("*")) == []


def test_unknown_names_are_attribute_errors() -> None:
    import beingh0_edge

    with pytest.raises(AttributeError, match="no attribute 'polciy'"):
        beingh0_edge.polciy  # noqa: B018
    assert set(dir(beingh0_edge)) == set(beingh0_edge.__all__)
