"""Tables as spreadsheets and libraries write them are read as the one that is written here."""

import csv
import io
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from helpers.datasets import FERPLUS_COLUMNS, SEVEN, affectnet_release1, class_folders, fer2013_csv, rafdb_official
from hypothesis import given, settings
from hypothesis import strategies as st

from fer_voting.data.index import Index
from fer_voting.data.sets.affectnet import AffectNetDataModule, hold_corners
from fer_voting.data.sets.fer2013 import FER2013DataModule
from fer_voting.data.sets.ferplus import FERPlusDataModule
from fer_voting.data.sets.rafdb import RAFDBDataModule
from fer_voting.data.tables import decimal_number, open_table, whole_number

KNOWN = ("Usage", "Image name", "face_x", "pixels", "emotion")
CELLS = st.text(st.characters(exclude_categories=("Cc", "Cs", "Zl", "Zp")), max_size=8)
ENCODINGS = st.sampled_from(("utf-8", "utf-8-sig", "utf-16"))
SPELLINGS = st.sampled_from((str, str.upper, str.lower, lambda n: f" {n} ", lambda n: n.replace(" ", "_"), str.title))


def written(rows: list[list[str]], separator: str, quoting: int = csv.QUOTE_MINIMAL) -> str:
    text = io.StringIO()
    csv.writer(text, delimiter=separator, quoting=quoting).writerows(rows)
    return text.getvalue()


@settings(max_examples=80, deadline=None)
@given(st.data(), st.sampled_from(",;\t"), ENCODINGS, st.permutations(KNOWN), st.booleans())
def test_a_table_is_read_however_it_is_written(
    data: st.DataObject, separator: str, encoding: str, columns: list[str], quoted: bool
) -> None:
    columns = [*columns, "own"]
    rows = data.draw(st.lists(st.lists(CELLS, min_size=len(columns), max_size=len(columns)), max_size=4))
    header = [data.draw(SPELLINGS)(name) for name in columns[:-1]] + ["own"]
    if any(name.startswith(" ") for name in header):  # then blanks before cells go, too
        rows = [[cell.strip() for cell in row] for row in rows]
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "t.csv"
        quoting = csv.QUOTE_ALL if quoted else csv.QUOTE_MINIMAL
        path.write_bytes(written([header, *rows], separator, quoting).encode(encoding))
        with open_table(path, KNOWN) as table:
            assert table.columns == columns
            assert [list(row.values()) for row in table.by_column()] == rows


def test_rows_that_are_too_short_or_too_long(tmp_path: Path) -> None:
    (tmp_path / "t.csv").write_text("a,b\n1\n\n1,2,3,4\n")
    with open_table(tmp_path / "t.csv", ("a", "b")) as table:
        assert list(table.by_column()) == [{"a": "1", "b": None}, {"a": "1", "b": "2", None: "3,4"}]
        assert table.line == 4
        with pytest.raises(ValueError, match=r"t\.csv lacks the columns c; it has a, b"):
            table.require("a", "c")


def test_a_column_that_is_there_twice_is_an_error(tmp_path: Path) -> None:
    (tmp_path / "t.csv").write_text("emotion,Emotion\n1,2\n")
    with (
        pytest.raises(ValueError, match=r"t\.csv has the column emotion twice: emotion, Emotion"),
        open_table(tmp_path / "t.csv", ("emotion",)),
    ):
        pass


@given(st.integers(-(10**6), 10**6), st.sampled_from(("{}", "{}.0", "{}.", " {},00 ", "{}.000")))
def test_a_whole_number_may_have_a_point(number: int, form: str) -> None:
    assert whole_number(form.format(number)) == number


@pytest.mark.parametrize("text", ["6.5", "", "nan", "inf", "1e3", "0x1", "1_0", "six", "6.0.0", "9" * 400])
def test_another_text_is_no_whole_number(text: str) -> None:
    with pytest.raises(ValueError, match="is no whole number"):
        whole_number(text)


def test_a_decimal_comma() -> None:
    assert decimal_number(" 12,5") == decimal_number("12.5") == 12.5


# The lists of data sets ---------------------------------------------------------------------------------------------

COUNTS = {part: dict.fromkeys(SEVEN, 3) for part in ("train", "val", "test")}


def make_fer2013(root: Path) -> tuple[type[Any], list[Path]]:
    fer2013_csv(root / "fer2013.csv", {"Training": dict.fromkeys(SEVEN, 3), "PublicTest": {"happy": 2}})
    return FER2013DataModule, [root / "fer2013.csv"]


def make_ferplus(root: Path) -> tuple[type[Any], list[Path]]:
    _, paths = make_fer2013(root)
    usages = [line.rsplit(",", 1)[1] for line in paths[0].read_text().splitlines()[1:]]
    rows = [[usage, f"{i}.png", "7", "3", *"00000000"] for i, usage in enumerate(usages)]
    (root / "fer2013new.csv").write_text(written([["Usage", "Image name", *FERPLUS_COLUMNS], *rows], ","))
    return FERPlusDataModule, [*paths, root / "fer2013new.csv"]


def make_affectnet(root: Path, header: bool = True) -> tuple[type[Any], list[Path]]:
    affectnet_release1(root, COUNTS, header=header)
    return AffectNetDataModule, sorted((root / "Manually_Annotated_file_lists").iterdir())


def make_rafdb_folders(root: Path) -> tuple[type[Any], list[Path]]:
    class_folders(root, COUNTS, {label: label for label in SEVEN})
    rows = [[path.name, path.parent.name] for path in sorted((root / "train").rglob("*.*"))]
    (root / "train_labels.csv").write_text(written([["image", "label"], *rows], ","))
    return RAFDBDataModule, [root / "train_labels.csv"]


def make_rafdb(root: Path) -> tuple[type[Any], list[Path]]:
    return RAFDBDataModule, [rafdb_official(root, COUNTS)]


def index_of(kind: type[Any], root: Path) -> Index:
    data = kind(name="x", root=root, cache_dir=root.parent / "packs", classes=kind.class_choices[0])
    return data.source().read()


def disguise(path: Path, way: str) -> None:
    rows = list(csv.reader(path.read_text().splitlines()))
    is_table = path.suffix == ".csv"
    if way in ("upper", "title") and is_table:
        known = {"subDirectory_filePath", "emotion", "Usage", "image"}
        if known & set(rows[0]):
            rows[0] = [getattr(name, way)() for name in rows[0]]
        path.write_text(written(rows, ","))
    elif way == "blanks" and is_table:
        path.write_text("\n".join(", ".join(cell if ";" not in cell else f'"{cell}"' for cell in row) for row in rows))
    elif way == "numbers" and is_table:
        path.write_text(
            written([[f"{cell}.0" if cell in "0123456" and cell else cell for cell in r] for r in rows], ",")
        )
    elif way in (";", "\t"):
        text = written(rows, way) if is_table else path.read_text().replace(" ", way)
        path.write_text(text)
    elif way in ("utf-16", "utf-8-sig"):
        path.write_bytes(path.read_text().encode(way))
    elif way == "name":
        path.rename(path.with_name(path.name.title()))


@pytest.mark.parametrize("way", ["upper", "title", "blanks", "numbers", ";", "\t", "utf-16", "utf-8-sig", "name"])
@pytest.mark.parametrize("make", [
    make_fer2013, make_ferplus, make_affectnet, lambda root: make_affectnet(root, header=False), make_rafdb_folders,
    make_rafdb,
])  # fmt: skip
def test_lists_of_data_sets_are_read_however_they_are_written(tmp_path: Path, make: Any, way: str) -> None:
    root = tmp_path / "root"
    root.mkdir()
    kind, paths = make(root)
    plain = index_of(kind, root)
    assert plain.samples
    assert not plain.problems
    for path in paths:
        disguise(path, way)
    index = index_of(kind, root)
    assert index.samples == plain.samples
    assert not index.problems
    assert index.left_out == plain.left_out


def test_a_label_between_two_classes_is_a_problem(tmp_path: Path) -> None:
    lines = fer2013_csv(tmp_path / "root" / "FER2013.CSV", {"Training": {"sad": 2}})
    (tmp_path / "root" / "FER2013.CSV").write_text("\n".join(["Emotion;Pixels;Usage", lines[1].replace(",", ";"),
        f"6.5;{lines[1].split(',')[1]};training"]))  # fmt: skip
    index = index_of(FER2013DataModule, tmp_path / "root")
    assert len(index.samples) == 1
    assert [problem.reason for problem in index.problems] == ["emotion '6.5' is not 0 to 6"]


# Boxes as corners ---------------------------------------------------------------------------------------------------


@settings(max_examples=60, deadline=None)
@given(seed=st.integers(0, 2**31), corners=st.booleans(), count=st.integers(20, 200), beyond=st.floats(-0.3, 0.15))
def test_corners_are_told_from_sizes(seed: int, corners: bool, count: int, beyond: float) -> None:
    """Faces of all sizes at all places; those given by sizes also leave their image by up to 15 % at every edge."""
    generator = np.random.default_rng(seed)
    width, height = generator.uniform(60, 900, (2, count))
    side = generator.uniform(0.3, 0.8, count) * np.minimum(width, height)
    box = np.stack([side, side * generator.uniform(0.95, 1.2, count)])
    slack = np.stack([width, height]) * (1 + (0 if corners else beyond)) - box
    place = np.maximum(slack, 0) * generator.uniform(0.02, 0.98, (2, count))
    ends = np.minimum(place + box, [width, height]) if corners else place + box
    sizes = ends if corners else box
    rows = np.stack([*place, *(place + sizes), width, height], axis=1)
    assert hold_corners(rows) is corners


@pytest.mark.parametrize("corners", [False, True])
def test_a_list_whose_sizes_are_corners_is_refused(tmp_path: Path, corners: bool) -> None:
    kind, paths = make_affectnet(tmp_path / "root")
    for path in paths:
        head, *rows = csv.reader(path.read_text().splitlines())
        ends = [[*row[:3], *(str(int(row[i]) + corners * int(row[i - 2])) for i in (3, 4)), *row[5:]] for row in rows]
        path.write_text(written([head, *ends], ","))
    if corners:
        with pytest.raises(ValueError, match=r"training\.csv and .*columns face_width and face_height hold the boxes'"):
            index_of(kind, tmp_path / "root")
    else:
        assert len(index_of(kind, tmp_path / "root").samples) == 42
