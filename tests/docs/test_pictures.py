"""The picture of a terminal shows what is left on the screen, and says nothing of its own."""

import re
import runpy
import xml.etree.ElementTree as ElementTree

import pages
import pytest


def text_of(svg):
    """What a picture of a terminal shows, in one line."""
    elements = ElementTree.fromstring(svg).iter("{http://www.w3.org/2000/svg}text")
    return " ".join("".join(e.itertext()).replace("\xa0", " ") for e in elements)


@pytest.fixture(scope="module")
def terminal():
    return runpy.run_path(str(pages.ROOT / "docs/make_terminal.py"))


def test_a_bar_that_is_drawn_anew_is_on_the_screen_once(terminal):
    bars = "".join(f"\x1b[?25lstep {i}\r\x1b[2K" for i in range(3))
    written = f"panel\r\n{bars}step 3\r\nA\r\nB\r\x1b[2K\x1b[1A\x1b[2Kresult\r\n"
    assert terminal["screen"](written) == ["panel", "step 3", "result", ""]


def test_the_picture_is_of_a_real_command_line_and_loads_nothing(terminal):
    svg = terminal["picture"](["--version"])
    assert re.search(r"\$ +jaxmnist --version", text_of(svg))
    assert "@font-face" not in svg


def test_a_command_that_fails_makes_no_picture(terminal):
    with pytest.raises(RuntimeError, match="there is no command 'tarin'"):
        terminal["picture"](["tarin"])


def test_the_readme_prints_what_the_picture_shows():
    (printed,) = (block for block in pages.blocks("README.md") if block.language == "text")
    shown = text_of((pages.ROOT / "docs/pictures/terminal.svg").read_text("utf-8"))
    cells = [cell.strip() for line in printed.code.splitlines() for cell in line.split("│")]
    told = [cell for cell in cells if re.search(r"\d", cell)]
    assert len(told) == 3
    assert all(cell in shown for cell in told), "run docs/make_terminal.py, or mend the README"
