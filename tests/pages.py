"""The documents as tests see them: pages, code blocks and what is remarked on them.

Two remarks may stand above a block, unseen by readers, one a line:

    <!-- in tests: OLD => NEW -->   the block runs with NEW in place of OLD, to be quick
    <!-- not run: REASON -->        it needs what a test has not, such as a TPU; it is only checked
"""

import functools
import os
import re
import runpy
import shlex
import subprocess
import sys
import textwrap
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).parents[1]
PAGES = ["README.md", *sorted(f"docs/{path.name}" for path in (ROOT / "docs").glob("*.md"))]
# What a block without a language holds, or with this one: what a program prints.
OUTPUT = "text"
_BLOCK = re.compile(
    r'((?:^ *<!-- [^\n]* -->\n)*)^( *)```(\w*)(?: title="([^"\n]+)")?\n(.*?)^\2```$',
    re.DOTALL | re.MULTILINE,
)
_BETWEEN_COMMANDS = {
    ";",
    ";;",
    "&",
    "&&",
    "|",
    "||",
    "(",
    ")",
    ">",
    ">>",
    ">&",
    "<",
    "do",
    "then",
    "else",
}


@dataclass(frozen=True)
class Block:
    """A code block of a page.

    Attributes:
      page: its path from the root of the repository.
      line: where it begins.
      language: "bash", "python", ... or "text".
      title: the file that the reader is to write it to, or "".
      code: what it holds.
      swaps: what stands in it and what tests run instead.
      not_run: why it cannot run in a test, or "".
    """

    page: str
    line: int
    language: str
    title: str
    code: str
    swaps: tuple[tuple[str, str], ...]
    not_run: str

    def __str__(self) -> str:
        return f"{self.page}:{self.line}"

    @property
    def tested(self) -> str:
        """The code as tests run it."""
        code = self.code
        for old, new in self.swaps:
            assert old in code, f"{self}: it does not hold {old!r}, which tests are to replace"
            code = code.replace(old, new)
        return code

    @property
    def commands(self) -> list[list[str]]:
        """The words of each command of a bash block; what follows a redirection is one as well."""
        found: list[list[str]] = []
        for line in whole_lines(self.code.replace("\\\n", " ")):
            found.append([])
            for word in line:
                if word in _BETWEEN_COMMANDS:
                    found.append([])
                elif found[-1] or not re.match(r"\w+=", word):  # not a variable set before it
                    found[-1].append(word)
        return [words for words in found if words]


def whole_lines(code: str) -> Iterator[list[str]]:
    """The words of each line of a shell program; a quotation may go over several."""
    begun = ""
    for line in code.splitlines():
        lexer = shlex.shlex(f"{begun}{line}", posix=True, punctuation_chars=True)
        lexer.whitespace_split = True
        try:
            yield list(lexer)
            begun = ""
        except ValueError:  # no closing quotation yet
            begun += f"{line}\n"


def read(page: str) -> str:
    """The text of a page."""
    return (ROOT / page).read_text(encoding="utf-8")


@functools.cache
def blocks(page: str) -> list[Block]:
    """The code blocks of a page, in their order."""
    text, found = read(page), []
    for match in _BLOCK.finditer(text):
        remarks, _, language, title, code = match.groups()
        swaps = [tuple(swap) for swap in re.findall(r"<!-- in tests: (.+) => (.*) -->", remarks)]
        reasons = re.findall(r"<!-- not run: (.+) -->", remarks)
        line = text.count("\n", 0, match.start() + len(remarks)) + 1
        language = {"": OUTPUT, "sh": "bash", "shell": "bash"}.get(language, language)
        known = {"language": language, "title": title or "", "line": line}
        code = textwrap.dedent(code)
        reason = " ".join(reasons)
        found.append(Block(page=page, code=code, swaps=tuple(swaps), not_run=reason, **known))
    return found


ALL = [block for page in PAGES for block in blocks(page)]


@functools.cache
def reference() -> dict[str, str]:
    """The pages that are made from the code, by their path under docs/."""
    made = runpy.run_path(str(ROOT / "docs/make_reference.py"))["pages"]()
    return {f"docs/{name}": text for name, text in made.items()}


def run_page(page: str, folder: Path) -> None:
    """Does what a page tells its reader, from top to bottom, in an empty folder.

    A block with a title is written to the file of that name; one of Python is a program of its
    own; `jaxmnist` and `python` are those of this interpreter, `pip` has been called before.
    """
    environment = _users_environment(folder)
    for number, block in enumerate(blocks(page)):
        if block.not_run or block.language == OUTPUT:
            continue
        if block.title:
            (folder / block.title).write_text(block.tested, encoding="utf-8")
            continue
        if block.language == "bash":
            command = ["bash", "-euo", "pipefail", "-c", block.tested]
        else:
            program = folder / f"block_{number}.py"
            program.write_text(block.tested, encoding="utf-8")
            command = [sys.executable, program.name]
        texts = {"capture_output": True, "text": True, "stdin": subprocess.DEVNULL}
        run = subprocess.run(command, cwd=folder, env=environment, check=False, **texts)
        assert run.returncode == 0, f"{block} ended with {run.returncode}\n{run.stdout}{run.stderr}"


def _users_environment(folder: Path) -> dict[str, str]:
    """The environment of somebody who has installed the library and set nothing."""
    programs = folder.parent / f"{folder.name}-programs"
    programs.mkdir()
    start = (
        f"import sys; sys.path.insert(0, {str(ROOT)!r})\nfrom jaxmnist.cli.main import run\nrun()\n"
    )
    scripts = {
        "jaxmnist": f"#!{sys.executable}\n{start}",
        "python": f'#!/bin/sh\nexec "{sys.executable}" "$@"\n',
        "pytest": f'#!/bin/sh\nexec "{sys.executable}" -m pytest -p no:cacheprovider "$@"\n',
        "pip": "#!/bin/sh\n",
    }
    for name, script in scripts.items():
        (programs / name).write_text(script)
        (programs / name).chmod(0o755)
    tests_only = ("XLA_FLAGS", "JAX_NUM_CPU_DEVICES")
    kept = {
        name: value
        for name, value in os.environ.items()
        if name not in tests_only and not name.startswith("PYTEST")
    }
    path = os.pathsep.join([str(ROOT), os.environ.get("PYTHONPATH", "")])
    return kept | {"PATH": f"{programs}:{os.environ['PATH']}", "PYTHONPATH": path}
