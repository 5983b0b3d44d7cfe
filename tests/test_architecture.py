"""The package is built as its design says: layers, sizes, nothing at import, no dead key."""

import ast
import graphlib
import io
import re
import subprocess
import sys
import tokenize
from pathlib import Path

import pytest

import jaxmnist
from jaxmnist.config.default import KEYS

PACKAGE = Path(jaxmnist.__file__).parent
# Lines of code of the core: of all that a training run imports, whatever it is asked to do.
# Docstrings, comments and blank lines do not count.
LIMIT = 2500
# A module may import those of its own layer and of the layers below, never those above.
LAYERS = {
    "errors": 0,
    "config": 0,
    "names": 1,
    "clock": 1,
    "signals": 1,
    "writers": 1,
    "workdir": 1,
    "datasets": 1,
    "images": 1,
    "mesh": 1,
    "metrics": 1,
    "models": 1,
    "optim": 1,
    "augment": 1,
    "state": 1,
    "callbacks": 2,
    "step": 2,
    "checkpoint": 2,
    "pipeline": 2,
    "runs": 3,
    "cli": 4,
}
# They stand beside the layers: the lazy façade, `python -m jaxmnist`, and what the core does not
# import: parts that a name in the configuration or a command leads to, and the tools for tests.
BESIDE = {
    "__init__",
    "__main__",
    "testing",
    "zoo",
    "report",
    "bucket",
    "plan",
    "display",
    "distributed",
    "launch",
    "sweep",
}


def name_of(path: Path) -> str:
    """The dotted name of a file of the package."""
    parts = path.relative_to(PACKAGE.parent).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


FILES = {name_of(path): path for path in sorted(PACKAGE.rglob("*.py"))}
TREES = {name: ast.parse(path.read_text(encoding="utf-8")) for name, path in FILES.items()}


def part_of(name: str) -> str:
    """The second part of a dotted name: what the table of layers knows."""
    return (*name.split("."), "__init__")[1]


def is_type_checking(node: ast.AST) -> bool:
    return isinstance(node, ast.If) and getattr(node.test, "id", "") == "TYPE_CHECKING"


def code_that_runs(tree: ast.AST):
    """All nodes, of late imports too, but not what only a type checker sees."""
    for node in ast.iter_child_nodes(tree):
        if not is_type_checking(node):
            yield node
            yield from code_that_runs(node)


def imports_of(name: str) -> set[str]:
    """The modules of the package that a module imports, at once or late."""
    found = set()
    for node in code_that_runs(TREES[name]):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{name} imports relatively"
            inner = {f"{node.module}.{alias.name}" for alias in node.names}
            found |= {sub if sub in FILES else str(node.module) for sub in inner}
    return {module for module in found if module in FILES} - {name}


IMPORTS = {name: imports_of(name) for name in FILES}


def code_lines(name: str) -> set[int]:
    """The numbers of the lines that hold code."""
    source, lines = FILES[name].read_text(encoding="utf-8"), set()
    blank = {tokenize.COMMENT, tokenize.NL, tokenize.NEWLINE, tokenize.INDENT, tokenize.DEDENT}
    for token in tokenize.generate_tokens(io.StringIO(source).readline):
        if token.type not in blank | {tokenize.ENDMARKER}:
            lines |= {*range(token.start[0], token.end[0] + 1)}
    kinds = (ast.Module, ast.ClassDef, ast.FunctionDef, ast.AsyncFunctionDef)
    for node in ast.walk(TREES[name]):
        if isinstance(node, kinds) and ast.get_docstring(node) is not None:
            lines -= {*range(node.body[0].lineno, node.body[0].end_lineno + 1)}
    return lines


@pytest.mark.parametrize("name", FILES)
def test_imports_run_downward_only(name):
    part = part_of(name)
    if part in BESIDE - {"__init__", "__main__"}:
        return  # they may import the core; that it does not import them is seen with the others
    assert part in {*LAYERS, *BESIDE}, f"{name} has no layer: add it to the table"
    if part == "__main__":
        assert IMPORTS[name] == {"jaxmnist.cli.main"}
        return
    layer = LAYERS.get(part, -1)
    for other in IMPORTS[name]:
        if other == "jaxmnist" or part_of(other) in BESIDE:
            assert part == "cli", f"{name} imports {other}, which a command may, or a name reaches"
        else:
            assert LAYERS.get(part_of(other), 99) <= layer, f"{name} imports {other}, above it"


def test_the_facade_imports_nothing_of_the_package():
    assert IMPORTS["jaxmnist"] == set()


def test_no_module_imports_itself_by_way_of_others():
    list(graphlib.TopologicalSorter(IMPORTS).static_order())  # raises CycleError


@pytest.mark.parametrize("name", FILES)
def test_files_and_functions_are_short(name):
    assert len(FILES[name].read_text(encoding="utf-8").splitlines()) <= 350
    lines = code_lines(name)
    for node in ast.walk(TREES[name]):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            length = len(lines & {*range(node.lineno, node.end_lineno + 1)})
            assert length <= 60, f"{name}.{node.name} has {length} lines of code"


@pytest.mark.parametrize("name", [name for name in FILES if part_of(name) != "testing"])
def test_blocks_are_nested_three_deep_at_most(name):
    for node in ast.walk(TREES[name]):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            assert nesting(node) <= 3, f"{name}.{node.name} is nested too deep"


def nesting(node: ast.AST) -> int:
    """How deep blocks lie within each other; a function within starts anew."""
    blocks = (ast.For, ast.While, ast.If, ast.With, ast.Try)
    deepest = 0
    for child in ast.iter_child_nodes(node):
        if isinstance(child, ast.FunctionDef | ast.ClassDef):
            continue
        # An elif is an If in the orelse of an If, and no deeper than it.
        chained = isinstance(node, ast.If) and isinstance(child, ast.If) and node.orelse == [child]
        deepest = max(deepest, nesting(child) + (isinstance(child, blocks) and not chained))
    return deepest


def test_the_core_is_small(record_property):
    core, ahead = set(), ["jaxmnist", "jaxmnist.runs.train"]
    while ahead:
        name = ahead.pop()
        core.add(name)
        parents = {name[:i] for i, letter in enumerate(name) if letter == "."}
        ahead += (IMPORTS[name] | parents) - core
    assert not {part_of(name) for name in core} & (BESIDE - {"__init__"} | {"cli"})
    total = sum(len(code_lines(name)) for name in core)
    print(f"{total} lines of code in {len(core)} files")
    record_property("lines_of_code", total)
    assert total < LIMIT


@pytest.mark.parametrize("name", FILES)
def test_every_public_name_and_every_module_says_what_it_is(name):
    tree = TREES[name]
    assert ast.get_docstring(tree), f"{name} does not say its job"
    for node in tree.body:
        if isinstance(node, ast.FunctionDef | ast.ClassDef) and not node.name.startswith("_"):
            assert ast.get_docstring(node), f"{name}.{node.name} has no docstring"


@pytest.mark.parametrize("key", KEYS)
def test_every_key_of_the_configuration_is_read(key):
    reads = re.compile(rf"config\.{re.escape(key)}\b")
    readers = [
        name
        for name, path in FILES.items()
        if part_of(name) not in ("config", "testing")
        and reads.search(path.read_text(encoding="utf-8"))
    ]
    assert readers, f"no code reads config.{key}"


def test_importing_every_module_starts_and_changes_nothing():
    code = f"""
import sys
names = {sorted(set(FILES) - {"jaxmnist.__main__"})!r}
import os, socket, logging, warnings, random
import absl.flags, absl.logging, numpy, jax, flax.linen, optax, grain, rich.progress
import orbax.checkpoint, pytest, PIL.Image, filelock, platformdirs, tensorboardX
import jinja2, matplotlib.figure
from jax._src import xla_bridge
def facts():
    return {{
        "flags": sorted(absl.flags.FLAGS), "environment": dict(os.environ),
        "jax": {{k: str(v) for k, v in jax.config.values.items()}},
        "handlers": len(logging.root.handlers), "filters": len(warnings.filters),
        "random": (random.getstate(), str(numpy.random.get_state())), "path": list(sys.path),
    }}
before = facts()
def no_socket(*args, **kwargs):
    raise AssertionError("a socket at import")
socket.socket = no_socket
for name in names:
    __import__(name)
after = facts()
changed = [key for key in before if before[key] != after[key]]
assert not changed, changed
assert not xla_bridge.backends_are_initialized(), "a backend runs"
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


def test_importing_the_package_imports_neither_jax_nor_numpy():
    code = "import sys, jaxmnist; sys.exit(str({'jax', 'numpy', 'absl'} & {*sys.modules} or 0))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.stderr.strip() == "0", done.stderr


def test_the_facade_finds_each_of_its_names():
    for name in jaxmnist.__all__:
        assert getattr(jaxmnist, name).__name__ == name
    assert {*jaxmnist.__all__} <= {*dir(jaxmnist)}
    with pytest.raises(AttributeError, match="module 'jaxmnist' has no attribute 'tarin'"):
        _ = jaxmnist.tarin
