"""Tables as Markdown, LaTeX and CSV; LaTeX is read by a parser of another project, and by TeX where it is installed."""

import csv
import re
import shutil
import subprocess
from collections.abc import Sequence
from pathlib import Path

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from pylatexenc.latex2text import LatexNodes2Text, MacroTextSpec, get_default_latex_context_db
from pylatexenc.latexwalker import LatexEnvironmentNode, LatexMacroNode, LatexWalker

from fer_voting.results.table import LATEX_PREAMBLE, Table, write_tables
from fer_voting.system.text import escape

SPECIAL = [*"\\{}$&#_%~^<>|`'\"*", "--", "---", "''", "``", ",,", "[2pt]", "?`", "!`"]
few = settings(max_examples=40, derandomize=True, database=None, deadline=None)
NAMES = st.text(st.characters(exclude_categories=["Cs"]), max_size=12) | st.sampled_from(SPECIAL)
ACCURACIES = Table(
    ["split", "runs", "soft vote", "paper", "95 % interval", "p", "images"],
    [
        ["m_1 & m%2", "2 of 3", "96.43 ± 0.00", "63.06", "-0.10 to +2.50 (images only)", "0.375, 2e-5", "3,500"],
        ["[base]", "3 of 3", "96.43 ± 1.20", "–", "+0.10 to +2.50", "1.000", "28,709"],
        ["*", "0 of 3", "not run", "61.97", "–", "–", "48×48"],
        ["größer", "1 of 3", "100.00", "64.9", "–", "–", "2023"],
    ],
    best={"soft vote", "paper"},
)  # fmt: skip


def test_markdown_aligns_its_columns() -> None:
    table = Table(["a", "number"], [["long text", "1"], ["b", "22.50"]])
    assert table.markdown() == (
        "| a         | number |\n"
        "| --------- | -----: |\n"
        "| long text |      1 |\n"
        "| b         |  22.50 |\n"
    )  # fmt: skip


def tabular(latex: str) -> list[list[str]]:
    """The cells of the one tabular, as LaTeX; its column types come first. Fails if it is not well-formed."""
    nodes, _, _ = LatexWalker(latex, tolerant_parsing=False).get_latex_nodes()
    (environment,) = (node for node in nodes if isinstance(node, LatexEnvironmentNode))
    assert environment.environmentname == "tabular"
    cells, rows = [""], []
    for node in environment.nodelist:
        text = node.latex_verbatim()
        if isinstance(node, LatexMacroNode) and node.macroname in ("toprule", "midrule", "bottomrule"):
            assert node.latex_verbatim().strip() == f"\\{node.macroname}"
        elif isinstance(node, LatexMacroNode) and node.macroname == "\\":
            assert text.strip() == r"\\"  # no star, no length
            rows.append([cell.strip() for cell in cells])
            cells = [""]
        elif text == "&":
            cells.append("")
        else:
            cells[-1] += text
    assert [cell.strip() for cell in cells] == [""]
    return [list(environment.nodeargd.argnlist[0].latex_verbatim().strip("{}")), *rows]


def test_latex_of_numbers_and_the_best() -> None:
    columns, header, *rows = tabular(ACCURACIES.latex())
    assert columns == list("lrrrrrr")
    assert header == ["split", "runs", "soft vote", "paper", r"95 \% interval", "p", "images"]
    assert rows == [
        [
            *(r"m\_1 \& m\%2", r"\num{2} of \num{3}", r"\num{96.43 +- 0.00}", r"\num{63.06}"),
            *(r"\num{-0.10} to \num{+2.50} (images only)", r"\num{0.375}, \num{2e-5}", r"\num{3500}"),
        ],
        [
            *("{}[base]", r"\num{3} of \num{3}", r"\num{96.43 +- 1.20}", "–"),
            *(r"\num{+0.10} to \num{+2.50}", r"\num{1.000}", r"\num{28709}"),
        ],
        ["{}*", r"\num{0} of \num{3}", "not run", r"\num{61.97}", "–", "–", r"\num{48}×\num{48}"],
        [
            *("größer", r"\num{1} of \num{3}", r"\textbf{\num{100.00}}", r"\textbf{\num{64.9}}", "–", "–"),
            r"\num{2023}",
        ],
    ]


@pytest.mark.parametrize(
    ("cells", "bold"),
    [
        (["1.0", "2.0", "2.0 ± 0.3"], [False, True, True]),
        (["10,000", "9,999"], [True, False]),
        (["-2", "-3"], [True, False]),
        (["5", "not run", ""], [False] * 3),  # nothing to be better than
        (["5", "5"], [False] * 2),
        (["not run", "–"], [False] * 2),
    ],
)
def test_the_highest_is_bold_where_numbers_differ(cells: list[str], bold: list[bool]) -> None:
    table = Table(["a", "soft", "cost"], [["x", cell, cell] for cell in cells], best={"soft"})
    _, _, *rows = tabular(table.latex())
    assert [[r"\textbf" in cell for cell in row] for row in rows] == [[False, each, False] for each in bold]


KERNEL = get_default_latex_context_db()
ASCII = {
    "bar": "|",
    "asciicircum": "^",
    "asciitilde": "~",
    "asciigrave": "`",
}  # pylatexenc has accents for three of these
KERNEL.add_context_category("ascii", macros=[MacroTextSpec(f"text{k}", v) for k, v in ASCII.items()], prepend=True)
READER = LatexNodes2Text(latex_context=KERNEL)


def without_spaces(text: str) -> str:
    return "".join(text.split())


@few
@given(st.tuples(NAMES, NAMES, NAMES, NAMES.map(lambda name: re.sub(r"\d", "", name))))
@example(SPECIAL[:4])
@example(["a\\\\[3pt]", "%\n&", "\u202e{", "_ \t'' `"])
def test_names_in_any_script_are_cells_that_read_as_written(names: Sequence[str]) -> None:
    table = Table([*names[:2]], [[*names[2:]]], best={names[1]})
    _, *rows = tabular(table.latex())
    cells = [without_spaces(READER.latex_to_text(cell)) for row in rows for cell in row]
    assert cells == [without_spaces(escape(name)) for name in names]


@few
@given(st.tuples(NAMES, NAMES, NAMES, NAMES))
def test_csv_has_the_same_cells_and_no_formula(names: Sequence[str]) -> None:
    rows = list(csv.reader(Table([*names[:2]], [[*names[2:]]]).csv().splitlines()))
    assert [len(row) for row in rows] == [2, 2]
    for cell, name in zip(rows[0] + rows[1], names, strict=True):
        assert cell.replace(",", "").endswith(escape(name).replace(",", ""))
        assert not re.match(r"[=@]|[-+](?!\d)", cell)


def test_csv_of_numbers() -> None:
    header, *rows = csv.reader(ACCURACIES.csv().splitlines())
    assert header == ACCURACIES.header
    assert rows[0] == [*ACCURACIES.rows[0][:-1], "3500"]
    assert rows[1][-1] == "28709"
    hostile = Table(["=a", "-1+cmd|' /C calc'!A0"], [["@x", "-1+cmd|' /C calc'!A0"], ["-2", "-2"]])
    assert hostile.csv().splitlines() == [
        "./=a,./-1+cmd|' /C calc'!A0",
        "./@x,./-1+cmd|' /C calc'!A0",
        "./-2,-2",
    ]


def test_tables_of_an_earlier_call_are_removed(tmp_path: Path) -> None:
    (tmp_path / "others-2.csv").write_text("x")
    three = [("first", ACCURACIES), ("second", ACCURACIES), ("third", Table(["a"], [["b"]]))]
    names = ["t.tex", "t.csv", "t-2.tex", "t-2.csv", "t-3.tex", "t-3.csv"]
    assert write_tables(tmp_path / "t", three) == names
    assert (tmp_path / "t-3.csv").read_text() == "a\nb\n"
    assert write_tables(tmp_path / "t", three[:1]) == names[:2]
    assert sorted(path.name for path in tmp_path.iterdir()) == ["others-2.csv", "t.csv", "t.tex"]


@pytest.mark.slow
def test_a_minimal_document_compiles(tmp_path: Path) -> None:
    tex = shutil.which("pdflatex") or shutil.which("tectonic")
    if tex is None:
        pytest.skip("neither pdflatex nor tectonic is installed")
    table = Table(["split", *SPECIAL], [["x", *SPECIAL], *([name] * (1 + len(SPECIAL)) for name in SPECIAL)], left=2)
    files = [name for i, one in enumerate((ACCURACIES, table)) for name in one.write(tmp_path / f"{i}", "50 %\n\\x")]
    assert files == ["0.tex", "0.csv", "1.tex", "1.csv"]
    document = rf"\documentclass{{article}}{LATEX_PREAMBLE}\begin{{document}}\input{{0}} \input{{1}}\end{{document}}"
    (tmp_path / "paper.tex").write_text(document)
    words = (
        [tex, "paper.tex"] if "tectonic" in tex else [tex, "-interaction=nonstopmode", "-halt-on-error", "paper.tex"]
    )
    done = subprocess.run(words, cwd=tmp_path, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stdout[-2000:]
    assert (tmp_path / "paper.pdf").stat().st_size > 10_000
