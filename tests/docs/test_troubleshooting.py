"""Each text that the page of troubleshooting quotes is one that the library can say."""

import ast

import pages
import pytest

PAGE = "docs/troubleshooting.md"
QUOTED = [line for b in pages.blocks(PAGE) if b.language == "text" for line in b.code.splitlines()]


def constants(source):
    """All texts of a program; in f-strings those between the values."""
    nodes = ast.walk(ast.parse(source))
    return [n.value for n in nodes if isinstance(n, ast.Constant) and isinstance(n.value, str)]


@pytest.fixture(scope="module")
def said():
    files = (pages.ROOT / "jaxmnist").rglob("*.py")
    return [text for file in files for text in constants(file.read_text("utf-8"))]


def unsaid(quoted, said):
    """The parts of a quoted text, between its gaps, that no text of the library holds."""
    parts = (part.strip(" ;:") for part in quoted.split("…"))
    # Where two texts of the code meet, a mark of punctuation joins them.
    pieces = [piece for part in parts for piece in split(part, said)]
    return [piece for piece in pieces if not any(piece in text for text in said)]


def split(part, said):
    """A part as it is, or cut in two at a colon or semicolon where only its halves are there."""
    if any(part in text for text in said):
        return [part]
    for mark in (": ", "; ", " "):
        for at in (i for i in range(len(part)) if part.startswith(mark, i)):
            halves = [part[:at].strip(), part[at + len(mark) :].strip()]
            if all(len(h) > 8 and any(h in text for text in said) for h in halves):
                return halves
    return [part]


@pytest.mark.parametrize("quoted", QUOTED)
def test_a_quoted_text_is_in_the_code(quoted, said):
    assert any(len(part.strip()) > 8 for part in quoted.split("…")), "too little to look up"
    assert not unsaid(quoted, said)


def test_a_text_that_nothing_says_is_noticed(said):
    assert unsaid("the moon is … made of cheese", said) == ["the moon is", "made of cheese"]
