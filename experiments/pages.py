"""Markdown pages show what commands wrote, between the lines `<!-- FILE -->` and `<!-- end -->`.

Pages are README.md and all of docs/; FILE is a Markdown file of the repository. A command that writes FILE updates the
pages; `python -m experiments.pages` updates all of them from the files as they are.
"""

import os
import re
from pathlib import Path

from fer_voting.system.atomic import write_atomically

REPO = Path(__file__).resolve().parent.parent
MARKS = re.compile(r"(<!-- (\S+\.md) -->\n).*?(<!-- end -->)", re.DOTALL)


def update_pages(file: Path | None = None) -> list[str]:
    """Names of the pages that show `file` (any file if None); their text between its marks is now its content.

    Headings are left out; links to plots in the file's folder become relative to the page. Raises FileNotFoundError
    if a mark names a file that does not exist.
    """
    shown = []
    for page in (REPO / "README.md", *sorted((REPO / "docs").rglob("*.md"))):
        old = new = page.read_text(encoding="utf-8")
        for start, name, end in MARKS.findall(old):
            source = REPO / name
            if file is None or source == file.resolve():
                text = re.sub(r"^#+ .*\n+", "", source.read_text(encoding="utf-8"), flags=re.MULTILINE)
                folder = Path(os.path.relpath(source.parent, page.parent)).as_posix()
                text = re.sub(r"\]\((?=[^)/]+\.png\))", f"]({folder}/", text)
                before, _, after = new.partition(start)
                new = before + start + text + end + after.partition(end)[2]
                shown.append(page.relative_to(REPO).as_posix())
        if new != old:
            with write_atomically(page) as out:
                out.write(new)
    return list(dict.fromkeys(shown))


if __name__ == "__main__":
    print(f"updated: {', '.join(update_pages())}")
