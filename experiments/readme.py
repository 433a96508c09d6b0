"""The README shows what commands wrote, between the lines `<!-- FILE -->` and `<!-- end -->`."""

import re
from pathlib import Path

from fer_voting.system.atomic import write_atomically

README = Path(__file__).resolve().parent.parent / "README.md"


def put_into_readme(file: Path, text: str) -> bool:
    """Replace what the README shows of `file`, a Markdown file as its mark names it; False if it has no such mark.

    Pictures beside the file are found from the README too; headings are left out.
    """
    text = re.sub(r"^#+ .*\n+", "", text, flags=re.MULTILINE)
    text = re.sub(r"\]\((?=[^)/]+\.png\))", f"]({file.parent.as_posix()}/", text)
    marks = rf"(<!-- {re.escape(file.as_posix())} -->\n).*?(<!-- end -->)"
    readme, replaced = re.subn(marks, lambda m: f"{m[1]}{text}{m[2]}", README.read_text(), flags=re.DOTALL)
    if replaced:
        with write_atomically(README) as out:
            out.write(readme)
    return bool(replaced)
