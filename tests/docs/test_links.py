"""Links within the documents lead somewhere, and nothing is loaded from elsewhere."""

import re
from pathlib import PurePosixPath

import pages
import pytest

_LINK = re.compile(r"\]\(([^)\s]+)\)")


def anchors(text):
    """The anchors that headings make."""
    heads = re.findall(r"(?m)^#+ +(.+)$", re.sub(r"```.*?```", "", text, flags=re.DOTALL))
    words = (re.sub(r"[^\w\s-]", "", head.replace("`", "").lower()) for head in heads)
    return {re.sub(r"[-\s]+", "-", word.strip()) for word in words}


def page_text(path):
    """The text of a page that is written or made; None where there is none."""
    if path in pages.reference():
        return pages.reference()[path]
    return pages.read(path) if (pages.ROOT / path).is_file() else None


@pytest.mark.parametrize("page", [*pages.PAGES, "CONTRIBUTING.md"])
def test_links_lead_to_pages_and_headings_that_exist(page):
    text = re.sub(r"```.*?```", "", pages.read(page), flags=re.DOTALL)
    for link in _LINK.findall(text):
        if re.match(r"https?://", link):
            continue
        path, _, anchor = link.partition("#")
        target = resolved(page, path) if path else page
        if not target.endswith(".md"):
            assert (pages.ROOT / target).exists(), f"{page} links to {link}, which does not exist"
            continue
        found = page_text(target)
        assert found is not None, f"{page} links to {link}, which does not exist"
        assert not anchor or anchor in anchors(found), f"{page} links to {link}: no such heading"


def resolved(page, path):
    parts = []
    for part in (PurePosixPath(page).parent / path).parts:
        parts = parts[:-1] if part == ".." else [*parts, part]
    return "/".join(parts)


def test_pages_and_pictures_load_nothing_from_elsewhere():
    for page in pages.PAGES:
        assert not re.search(r"!\[[^]]*\]\(https?:|<(img|script)[^>]*https?:", pages.read(page))
    for picture in (pages.ROOT / "docs/pictures").glob("*.svg"):
        text = picture.read_text("utf-8")
        assert not re.search(
            r'(href|src)="(https?:|//)|url\(["\']?https?:|@import|<script', text
        ), picture
