"""The picture of a terminal shows what is left on the screen, and says nothing of its own."""

import runpy
import xml.etree.ElementTree as ElementTree

import pytest

import pages


@pytest.fixture(scope="module")
def terminal():
    return runpy.run_path(str(pages.ROOT / "docs/make_terminal.py"))


def test_a_bar_that_is_drawn_anew_is_on_the_screen_once(terminal):
    bars = "".join(f"\x1b[?25lstep {i}\r\x1b[2K" for i in range(3))
    written = f"panel\r\n{bars}step 3\r\nA\r\nB\r\x1b[2K\x1b[1A\x1b[2Kresult\r\n"
    assert terminal["screen"](written) == ["panel", "step 3", "result", ""]


def test_the_picture_is_of_a_real_command_line_and_loads_nothing(terminal):
    svg = terminal["picture"](["--version"])
    text = " ".join("".join(element.itertext()) for element in ElementTree.fromstring(svg).iter())
    assert "$" in text and "jaxmnist --version" in text.replace("\xa0", " ")
    assert "@font-face" not in svg


def test_a_command_that_fails_makes_no_picture(terminal):
    with pytest.raises(RuntimeError, match="there is no command 'tarin'"):
        terminal["picture"](["tarin"])
