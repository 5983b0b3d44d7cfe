"""What mkdocs does beside its plugins: the reference pages, and guides that the menu leaves out."""

from pathlib import Path
from typing import Any

import make_reference
from mkdocs.structure.files import File


def on_config(config: Any) -> Any:
    """Completes the menu: pages that it does not name are guides, reference pages are listed."""
    named = str(config.nav)
    sections = {title: pages for entry in config.nav for title, pages in entry.items()}
    there = sorted(path.name for path in Path(config.docs_dir).glob("*.md"))
    # Troubleshooting stays the last of them.
    sections["Guides"][-1:-1] = [name for name in there if name not in named]
    sections["Reference"] += [f"reference/{name}.md" for name in ("configuration", "commands")]
    made = [name for name in make_reference.pages() if name.startswith("reference/python/")]
    sections["Reference"].append({"Python": made})
    return config


def on_files(files: Any, config: Any) -> Any:
    """Adds the reference pages."""
    for name, text in make_reference.pages().items():
        files.append(File.generated(config, name, content=text))
    return files
