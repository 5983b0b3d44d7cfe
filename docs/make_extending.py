"""Puts the files of examples/extending into docs/extending.md.

Command: python docs/make_extending.py [--check]
A block of the document that follows a line such as `mydigits/models.py` in backticks, alone, is
that file. With --check nothing is written, and a block that is not its file is an error.
"""

import re
import sys
from pathlib import Path

DOCUMENT = Path(__file__).with_name("extending.md")
PACKAGE = Path(__file__).parents[1] / "examples" / "extending"
_BLOCK = re.compile(r"(?m)^`([\w/.]+)`\n\n```(python|toml)\n(?:.*\n)*?```$")


def filled(text: str) -> str:
    """The document with each block as its file is now."""

    def block(match: re.Match[str]) -> str:
        code = (PACKAGE / match[1]).read_text(encoding="utf-8")
        return f"`{match[1]}`\n\n```{match[2]}\n{code}```"

    return _BLOCK.sub(block, text)


def shown(text: str) -> list[str]:
    """The names of the files that the document shows."""
    return [match[1] for match in _BLOCK.finditer(text)]


if __name__ == "__main__":
    before = DOCUMENT.read_text(encoding="utf-8")
    after = filled(before)
    if "--check" not in sys.argv:
        DOCUMENT.write_text(after, encoding="utf-8")
    elif after != before:
        sys.exit("docs/extending.md is not what its files are: run python docs/make_extending.py")
