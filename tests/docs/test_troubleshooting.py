"""Each text that the page of troubleshooting quotes is one that the library can say."""

import ast

import pages
import pytest

PAGE = "docs/troubleshooting.md"
QUOTED = [line for b in pages.blocks(PAGE) if b.language == "text" for line in b.code.splitlines()]

# What joins two texts of the code.
MARKS = " ,;:.()"


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
    parts = (part.strip(MARKS) for part in quoted.split("…"))
    return [part for part in parts if not is_said(part, said)]


def is_said(part, said):
    """Whether a text of the library holds a part, or two of them, joined, do."""
    words = part.split(" ")
    cuts = ((" ".join(words[:i]), " ".join(words[i:])) for i in range(2, len(words) - 1))
    pieces = ((one.strip(MARKS), two.strip(MARKS)) for one, two in cuts)
    return any(part in text for text in said) or any(
        all(any(piece in text for text in said) for piece in pair) for pair in pieces
    )


@pytest.mark.parametrize("quoted", QUOTED)
def test_a_quoted_text_is_in_the_code(quoted, said):
    assert any(len(part.strip()) > 8 for part in quoted.split("…")), "too little to look up"
    assert not unsaid(quoted, said)


def test_a_text_that_nothing_says_is_noticed(said):
    assert unsaid("the moon is … made of cheese", said) == ["the moon is", "made of cheese"]
