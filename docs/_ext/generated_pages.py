"""Sphinx extension: writes docs/generated/ (not in the repository) before the pages are read."""

from pathlib import Path
from typing import Any

from api_reference import pages
from configuration_reference import configuration_reference
from sphinx.application import Sphinx

from fer_voting.runs.identity import NOT_IDENTITY


def write_pages(app: Sphinx) -> None:
    """Write the pages that are made from conf/ and from the package; one that has not changed is not touched."""
    docs = Path(app.srcdir)
    rows = "".join(f"| `{key}` | {reason} |\n" for key, reason in NOT_IDENTITY.items())
    wanted = {
        "configuration.md": configuration_reference(docs.parent / "conf"),
        "not_identity.txt": f"| key | why no result depends on it |\n|---|---|\n{rows}",
    }
    wanted |= {f"api/{package}.md": text for package, text in pages().items()}
    folder = docs / "generated"
    for path in folder.rglob("*.*"):
        if path.relative_to(folder).as_posix() not in wanted:
            path.unlink()
    for name, text in wanted.items():
        path = folder / name
        if not path.is_file() or path.read_text() != text:
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(text)


def setup(app: Sphinx) -> dict[str, Any]:
    app.connect("builder-inited", write_pages)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
