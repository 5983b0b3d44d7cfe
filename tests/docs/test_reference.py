"""The reference pages hold every key, command and public name, with what is said of each."""

import importlib
import inspect

import pages
import pytest

import jaxmnist
from jaxmnist.cli.main import COMMANDS
from jaxmnist.config.default import KEYS
from jaxmnist.config.load import shipped_configs

# Of the package's modules, what each gives; the names are looked up, not read as the pages are.
MODULES = ["jaxmnist", *(f"jaxmnist.{name}" for name in jaxmnist._MODULES)]


def public_names(module):
    """What a module offers: `__all__`, else its own functions and classes."""
    if listed := getattr(module, "__all__", None):
        return listed
    named = ((name, getattr(module, name)) for name in dir(module) if not name.startswith("_"))
    kinds = (name for name, value in named if inspect.isroutine(value) or inspect.isclass(value))
    home = (f"{module.__name__}.", module.__name__)
    return [n for n in kinds if f"{getattr(module, n).__module__}.".startswith(home[0])]


@pytest.mark.parametrize("module", MODULES)
def test_every_public_name_is_in_the_reference_and_explained(module):
    found = importlib.import_module(module)
    names = public_names(found)
    assert names
    page = pages.reference()[f"docs/reference/python/{module}.md"]
    for name in names:
        assert f"heading: {module}.{name}}}" in page, f"{module}.{name} is not in the reference"
        value = getattr(found, name)
        assert not callable(value) or inspect.getdoc(value), f"{module}.{name} has no docstring"


@pytest.mark.parametrize("key", KEYS)
def test_every_key_has_a_row_with_its_comment_and_default(key):
    page = pages.reference()["docs/reference/configuration.md"]
    (row,) = [line for line in page.splitlines() if line.startswith(f"| `{key}` |")]
    _, _, default, accepts, says, _ = row.replace(r"\|", "/").split("|")
    assert default.strip() == f"`{KEYS[key].default!r}`"
    assert accepts.strip() and len(says.strip()) > 20


def test_every_shipped_configuration_says_what_it_is():
    page = pages.reference()["docs/reference/configuration.md"]
    for name in shipped_configs():
        assert f"### {name}\n" in page
    assert "config.batch_size = 64\n" in page


@pytest.mark.parametrize("command", COMMANDS)
def test_every_command_and_its_flags_are_in_the_reference(command):
    page = pages.reference()["docs/reference/commands.md"]
    section = page.partition(f"## jaxmnist {command}\n")[2].partition("\n## ")[0]
    assert f"usage: jaxmnist {command}" in section
    for flag in COMMANDS[command][1]:
        assert f"--{flag}:" in section or f"--[no]{flag}:" in section


def test_a_name_that_has_no_page_is_noticed(monkeypatch):
    monkeypatch.setattr(jaxmnist.errors, "LostError", type("LostError", (), {}), raising=False)
    monkeypatch.setattr(jaxmnist.errors.LostError, "__module__", "jaxmnist.errors")
    with pytest.raises(AssertionError, match="LostError is not in the reference"):
        test_every_public_name_is_in_the_reference_and_explained("jaxmnist.errors")
