"""Makes the reference pages from the code: configuration, commands, Python.

Nothing of them is kept: `mkdocs build` makes them anew (hooks.py), so that none can be stale.

python docs/make_reference.py DIRECTORY     writes them, to look at
"""

import argparse
import ast
import contextlib
import inspect
import io
import re
from itertools import groupby
from pathlib import Path

import jaxmnist
from jaxmnist.cli.main import COMMANDS, main
from jaxmnist.config import default_config, get_config, to_text
from jaxmnist.config.default import KEYS
from jaxmnist.config.load import shipped_configs
from jaxmnist.models.build import MODELS

PACKAGE = Path(jaxmnist.__file__).parent


def pages() -> dict[str, str]:
    """Markdown by path within the documents."""
    python = {f"reference/python/{module}.md": page for module, page in python_pages().items()}
    made = {"reference/configuration.md": configuration(), "reference/commands.md": commands()}
    return made | python


def configuration() -> str:
    """Every key: its comment, its default, what it accepts; and the shipped configurations."""
    lines = ["# Configuration", "", "Made from `jaxmnist/config/default.py`, where alone a key is"]
    lines += [
        "written down. `jaxmnist config` prints the same, with the values of a run's own.",
        "",
    ]
    lines += [
        "A key is set with `--config.KEY=VALUE` on the command line, with `config.KEY = VALUE`"
    ]
    lines += ["in Python or in a file of your own, which `--config=FILE.py` names. All faults of a"]
    lines += [
        "configuration are told at once, each with its rule and the nearest key that exists.",
        "",
    ]
    comments = comments_of_keys()
    for group, names in groupby(KEYS, lambda name: name.partition(".")[0] if "." in name else ""):
        lines += [f"## {group or 'All of a run'}", "", "| key | default | accepts | what it does |"]
        lines += ["|---|---|---|---|"]
        for name in names:
            key = KEYS[name]
            example = f", such as `{key.example}`" if key.example else ""
            cells = (
                f"`{name}`",
                f"`{key.default!r}`",
                f"{key.rule.expected}{example}",
                comments[name],
            )
            lines.append(f"| {' | '.join(cell.replace('|', chr(92) + '|') for cell in cells)} |")
        lines.append("")
    return "\n".join([*lines, "## Shipped configurations", "", *shipped()])


def comments_of_keys() -> dict[str, str]:
    """What the comment above each key says, on one line."""
    found = re.findall(r"((?:# .+\n)+)config\.([\w.]+) = ", to_text(default_config()))
    return {name: " ".join(text.replace("# ", "").split()) for text, name in found}


def shipped() -> list[str]:
    """The shipped configurations: what each says of itself, and what it changes."""
    lines = ["`jaxmnist config --config=NAME` prints all keys of one, with the changes marked.", ""]
    for name, path in shipped_configs().items():
        first, _, more = ast.get_docstring(ast.parse(path.read_text("utf-8"))).partition("\n")
        changed = re.findall(r"config\.(\S+ = .+?)  # changed;", to_text(get_config(name)))
        lines += [f"### {name}", "", first, "", "```text", more.strip(), "```", ""]
        lines += (
            ["```python", *(f"config.{line}" for line in changed), "```", ""] if changed else []
        )
    return lines


def commands() -> str:
    """What each command prints when it is asked for help."""
    lines = ["# Commands", "", "Made from what the commands say of themselves.", ""]
    lines += ["```text", said("help"), "```", ""]
    for name in COMMANDS:
        lines += [f"## jaxmnist {name}", "", "```text", said(*name.split(), "--help"), "```", ""]
    exits = inspect.getdoc(main).partition("The exit code: ")[2].partition("\n\n")[0]
    return "\n".join([*lines, "## Exit codes", "", f"{' '.join(exits.split())}", ""])


def said(*arguments: str) -> str:
    """What a command line prints."""
    with contextlib.redirect_stdout(io.StringIO()) as out:
        code = main(arguments)
    if code:
        raise SystemExit(f"jaxmnist {' '.join(arguments)} ended with exit code {code}")
    return out.getvalue().strip()


def python_pages() -> dict[str, str]:
    """A page for each public module; mkdocstrings fills in what the docstrings say."""
    made = {}
    for module in ("jaxmnist", *(f"jaxmnist.{name}" for name in sorted(jaxmnist._MODULES))):
        names = public_names(module)
        if module == "jaxmnist.models":  # those that the configuration names, too
            shipped_models = (path.partition(":")[::2] for path in MODELS.values())
            names = {name: f"{path}.{name}" for path, name in shipped_models} | names
        lines = [f"# {module}", "", ast.get_docstring(tree_of(module)), ""]
        for name, path in sorted(names.items(), key=lambda item: item[0].lower()):
            lines += [f"::: {path}", f"    options: {{heading: {module}.{name}}}", ""]
        if names:
            made[module] = "\n".join(lines)
    return made


def public_names(module: str) -> dict[str, str]:
    """The public names of a module, and a dotted path of each.

    A package offers what it imports from within itself; a plain module what it defines.
    """
    found = {}
    for node in tree_of(module).body:
        # What is imported for the type checker alone is what the module gives at first use.
        for item in node.body if isinstance(node, ast.If) else [node]:
            if isinstance(item, ast.ImportFrom) and str(item.module).startswith(f"{module}."):
                for alias in item.names:
                    # A submodule of that name would be taken for it.
                    clash = str(item.module) == f"{module}.{alias.name}"
                    place = item.module if clash else module
                    found[alias.name] = f"{place}.{alias.name}"
            elif isinstance(item, ast.FunctionDef | ast.ClassDef):
                found[item.name] = f"{module}.{item.name}"
    return {name: path for name, path in found.items() if not name.startswith("_")}


def tree_of(module: str) -> ast.Module:
    """The syntax tree of a module."""
    path = PACKAGE.parent / module.replace(".", "/")
    file = path / "__init__.py" if path.is_dir() else path.with_suffix(".py")
    return ast.parse(file.read_text("utf-8"))


def _write() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("directory", type=Path)
    directory = parser.parse_args().directory
    for name, text in pages().items():
        path = directory / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text, "utf-8")


if __name__ == "__main__":
    _write()
