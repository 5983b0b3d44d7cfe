"""Every code block of the documents is one that works: commands parse, programs run."""

import ast
import json
import re
import tomllib

import pages
import pytest

from jaxmnist.cli.main import COMMANDS, main
from jaxmnist.config import apply_overrides, get_config

LANGUAGES = {"bash", "ini", "json", "python", "text", "toml", "yaml"}


def pages_of_other_tests():
    """Pages that a test of another folder reads: their blocks are its affair."""
    files = (pages.ROOT / "tests").rglob("test_*.py")
    texts = [file.read_text("utf-8") for file in files if file.parent.name != "docs"]
    return {page for page in pages.PAGES if any(f'"{page}"' in text for text in texts)}


HERE = [page for page in pages.PAGES if page == "README.md" or page not in pages_of_other_tests()]


def in_language(*languages):
    return [pytest.param(b, id=str(b)) for b in pages.ALL if b.language in languages]


def test_all_blocks_are_found_and_of_known_languages():
    for page in pages.PAGES:
        fences = re.findall(r"(?m)^ *```", pages.read(page))
        assert len(fences) == 2 * len(pages.blocks(page)), f"a fence of {page} is not closed"
    assert {block.language for block in pages.ALL} <= LANGUAGES


@pytest.mark.parametrize("block", in_language("text"))
def test_what_a_program_prints_holds_no_command(block):
    commands = ("jaxmnist", "pip", "python", "pytest", "cd", "for", "git", "gcloud", "sbatch", "$")
    assert block.code.split()[0] not in commands, f"{block}: mark it as bash"


@pytest.mark.parametrize("block", in_language("python"))
def test_python_is_python(block):
    ast.parse(block.tested)


@pytest.mark.parametrize("block", in_language("json", "toml"))
def test_data_can_be_read(block):
    assert {"json": json.loads, "toml": tomllib.loads}[block.language](block.code)


@pytest.mark.parametrize("block", in_language("bash"))
def test_commands_have_flags_and_keys_that_exist(block, monkeypatch, capsys):
    for program, *words in block.commands:
        if program == "pip":
            check_extras(words)
        if program == "python" and words[0].endswith(".py"):
            titles = [b.title for b in pages.blocks(block.page)]
            assert words[0] in titles or (pages.ROOT / words[0]).is_file(), f"{block}: {words[0]}"
        if program != "jaxmnist" or {"--help", "--version", "help"} & {*words}:
            continue
        # A command of two words, or one.
        names = [name for name in (" ".join(words[:2]), words[0]) if name in COMMANDS]
        assert names, f"{block}: there is no command {words[0]}"
        parsed_only = (lambda flags, *files: None, *COMMANDS[names[0]][1:])
        monkeypatch.setitem(COMMANDS, names[0], parsed_only)
        assert main(words) == 0, f"{block}: {capsys.readouterr().err}"
        check_configuration(words)
        monkeypatch.undo()


def check_configuration(words):
    """The configuration that a command names must be a valid one; a reader's own file may be."""
    given = [word for word in words if "$" not in word]  # a variable of the shell may be anything
    keys = (re.match(r"--(no)?config\.([\w.]+)(?:=(.*))?$", word) for word in given)
    texts = {k[2]: k[3] or str(k[1] is None) for k in keys if k}
    named = [word.partition("=")[2] for word in given if word.startswith("--config=")]
    shipped = [name for name in named if not name.endswith(".py")]
    apply_overrides(get_config(*shipped), texts)


def check_extras(words):
    """What is installed with pip in brackets must be an extra."""
    extras = tomllib.loads(pages.read("pyproject.toml"))["project"]["optional-dependencies"]
    asked = re.findall(r"(?:jaxmnist|\.)\[(.+?)\]", " ".join(words))
    assert {name for text in asked for name in text.split(",")} <= {*extras}


@pytest.mark.parametrize("page", HERE)
def test_remarks_for_tests_are_understood(page):
    remarks = re.findall(r"<!-- (?:in tests|not run).*-->", pages.read(page))
    understood = sum(len(b.swaps) + bool(b.not_run) for b in pages.blocks(page))
    assert len(remarks) == understood, f"{page}: a remark belongs right above a block"


def runs(page):
    found = [b for b in pages.blocks(page) if b.language in ("bash", "python") and not b.not_run]
    return bool(found)


@pytest.mark.slow
@pytest.mark.timeout(600)
@pytest.mark.parametrize("page", [page for page in HERE if runs(page)])
def test_a_page_does_what_it_says(page, tmp_path):
    folder = tmp_path / "reader"
    folder.mkdir()
    pages.run_page(page, folder)


def test_a_block_that_fails_is_named(tmp_path, monkeypatch):
    text = "# A page\n\n```python\nprint(1)\n```\n\n```bash\nls nowhere\n```\n"
    monkeypatch.setattr(pages, "read", lambda page: text)
    (tmp_path / "reader").mkdir()
    with pytest.raises(AssertionError, match=r"made-up\.md:7 ended with 2"):
        pages.run_page("made-up.md", tmp_path / "reader")
