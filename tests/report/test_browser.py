"""A report in a real browser: a silent console, no request, no scrolling sideways."""

import importlib.util
import json
import shutil
from pathlib import Path

import pytest
from PIL import Image

import jaxmnist
from jaxmnist.report import report
from support import Tiny, small_config, small_data

pytestmark = pytest.mark.slow

SCRIPT = Path(__file__).parents[2] / "docs" / "make_screenshots.py"
BAD = """<!DOCTYPE html><title>bad</title><img src="https://example.invalid/x.png">
<div style="width: 900px">wide</div><script>undefinedFunction()</script>"""


@pytest.fixture(scope="module")
def browser():
    """The script that makes the pictures of the documents, and with it Chromium."""
    if shutil.which("chromium") is None:
        pytest.fail("these tests need Chromium: install it with `apt-get install chromium`")
    spec = importlib.util.spec_from_file_location("make_screenshots", SCRIPT)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="module")
def pages(tmp_path_factory):
    """Reports of a run, of three, and of a run of which not much is left."""
    runs = tmp_path_factory.mktemp("runs")
    names = ("a-run-with-a-rather-long-name-without-spaces", "second", "third")
    first, *others = (runs / name for name in names)
    config = small_config(parallel__devices=1)
    jaxmnist.train(config, first, dataset=small_data(), model=Tiny(), quiet=True)
    for other in others:
        shutil.copytree(first, other)
    found = {"one": report(first), "three": report(first, compare=others, out=runs / "3.html")}
    (others[0] / "result.json").write_text('{"versions": {"<script>alert(1)</script>": "x"}}')
    (others[0] / "metrics.jsonl").write_text('{"split"')
    return found | {"damaged": report(others[0])}


def opened(browser, pages, directory):
    """Sizes of pages on a phone, what is said on the console, what they ask the network for."""
    log = directory / "net.json"
    sizes, said = browser.measure(pages, 390, f"--log-net-log={log}")
    console = [line for line in said.splitlines() if "CONSOLE" in line]
    events = (event.get("params", {}) for event in json.loads(log.read_text())["events"])
    # Chromium itself asks for updates and the like; those requests come from no page.
    requests = [e["url"] for e in events if e.get("initiator", "not an origin") != "not an origin"]
    return sizes, console, sorted({url for url in requests if url.startswith("http")})


def test_reports_are_silent_use_no_network_and_fit_a_phone(browser, pages, tmp_path):
    sizes, console, requests = opened(browser, [*pages.values()], tmp_path)
    assert (console, requests) == ([], [])
    assert [width for width, _ in sizes] == [390] * len(pages)


def test_a_page_with_faults_is_seen_among_others(browser, pages, tmp_path):
    (tmp_path / "bad.html").write_text(BAD)
    found = opened(browser, [pages["one"], tmp_path / "bad.html"], tmp_path)
    ((narrow, _), (wide, _)), console, requests = found
    assert "undefinedFunction is not defined" in console[0]
    assert requests == ["https://example.invalid/x.png"]
    assert narrow == 390 and wide > 900


def test_pictures_show_the_whole_page_in_both_schemes(browser, pages, tmp_path):
    corners = []
    ((size,), _) = browser.measure([pages["one"]], 390)
    for scheme in ("light", "dark"):
        picture = tmp_path / f"{scheme}.png"
        browser.take(pages["one"], picture, size=size, scheme=scheme)
        with Image.open(picture) as image:
            assert image.size == size
            corners.append(sum(image.convert("RGB").getpixel((2, 2))))
    assert corners[0] > 700 and corners[1] < 100
