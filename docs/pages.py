"""Pages of the site that lie outside of docs/: they stay where a reader of the repository looks for them.

Links to them lead there in the repository, and to the site's page of them in the site.
"""

from __future__ import annotations

from pathlib import Path

from mkdocs.config.defaults import MkDocsConfig
from mkdocs.structure.files import File, Files
from mkdocs.structure.pages import Page

PAGES = {
    "architecture.md": "ARCHITECTURE.md",
    "changelog.md": "CHANGELOG.md",
    "contributing.md": "CONTRIBUTING.md",
    "examples.md": "examples/README.md",
}


def on_files(files: Files, config: MkDocsConfig) -> Files:
    """Called by MkDocs when it has listed the files of docs/."""
    for name, path in PAGES.items():
        files.append(File.generated(config, name, abs_src_path=str(Path(config.config_file_path).parent / path)))
    return files


def on_page_markdown(markdown: str, page: Page, config: MkDocsConfig, files: Files) -> str:
    """Called by MkDocs before it reads the text of a page."""
    for name, path in PAGES.items():
        markdown = markdown.replace(f"](../{path}", f"]({name}")
    return markdown
