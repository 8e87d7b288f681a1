"""A module imports its own floor or a lower one; the door opens without torch."""

import ast
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2] / "src" / "tunesmith"
FLOORS = {
    "errors": 0, "config": 0, "names": 0, "options": 0,
    "data": 1, "metrics": 1, "planning": 1, "method": 1, "recipe": 1,
    "runs": 2, "reporting": 2,
    "models": 3, "methods": 3, "training": 3, "inference": 3, "adapters": 3,
    "climb": 4, "evaluation": 4, "serving": 4,
    "cli": 5, "__init__": 5, "__main__": 5,
}  # fmt: skip
HEAVY = {"torch", "transformers", "peft", "safetensors", "accelerate"}


def modules():
    return sorted(path for path in ROOT.rglob("*.py"))


def imports(path):
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.ImportFrom) and node.module:
            yield from (
                [f"{node.module}.{alias.name}" for alias in node.names] if node.module == "tunesmith" else [node.module]
            )
        elif isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)


def floor_of(path):
    return FLOORS[path.relative_to(ROOT).parts[0].removesuffix(".py")]


@pytest.mark.parametrize("path", modules(), ids=lambda path: str(path.relative_to(ROOT)))
def test_a_module_imports_no_higher_floor(path):
    for name in imports(path):
        parts = name.split(".")
        if parts[0] == "tunesmith" and len(parts) > 1:
            assert FLOORS[parts[1]] <= floor_of(path), f"imports {name}"
        if parts[0] in HEAVY:
            assert floor_of(path) >= 3, f"imports {name}"


@pytest.mark.parametrize(
    "module", ["tunesmith", "tunesmith.cli", "tunesmith.data.encode", "tunesmith.reporting.report"]
)
def test_the_lower_floors_and_the_door_import_no_torch(module):
    code = (
        f"import sys, {module}; print([name for name in ('torch', 'transformers', 'datasets') if name in sys.modules])"
    )
    out = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
    assert out.strip() == "[]"


def test_functions_are_short_and_take_few_parameters():
    for path in modules():
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.FunctionDef):
                length = (node.end_lineno or 0) - node.lineno
                assert length <= 60, f"{path.name}:{node.lineno} {node.name} has {length} lines"


def test_no_file_is_too_long():
    for path in modules():
        assert len(path.read_text(encoding="utf-8").splitlines()) <= 400, path
