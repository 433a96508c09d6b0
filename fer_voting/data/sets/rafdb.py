"""RAF-DB, basic expressions (Li and Deng 2019, doi:10.1109/TIP.2018.2868382): the official files and class folders."""

import re
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from fer_voting.data.files import ClassFolders, FilesDataModule, Layout, part_folders, side_files
from fer_voting.data.index import Box, Index, Problem, Sample, bases, image_files, images_by_stem, inside
from fer_voting.data.labels import canonical
from fer_voting.data.tables import file_in, open_table, open_text, whole_number

# Ids 1 to 7.
ID_NAMES = ("surprise", "fear", "disgust", "happy", "sad", "anger", "neutral")
BOXES = "Annotation/boundingbox"
LIST_FILES = ("list_patition_label.txt", "list_partition_label.txt")  # the first is the authors' spelling
EXPECTED = {
    "train": dict(zip(ID_NAMES, (1290, 281, 717, 4772, 1982, 705, 2524), strict=True)),
    "test": dict(zip(ID_NAMES, (329, 74, 160, 1185, 478, 162, 680), strict=True)),
}


def label_of(text: str) -> str:
    """The class of an id 1 to 7 or of a name. Raises ValueError for anything else."""
    text = text.strip()
    if not text[:1].isdecimal():
        return canonical(text)
    if not 1 <= (number := whole_number(text)) <= len(ID_NAMES):
        raise ValueError(f"label {text} is not 1 to {len(ID_NAMES)}")
    return ID_NAMES[number - 1]


def _list_file(base: Path) -> Path | None:
    return file_in(base / "EmoLabel", *LIST_FILES)


def _find_official(root: Path, kind: str) -> Path | None:
    return next((base for base in bases(root) if _list_file(base) and (base / "Image" / kind).is_dir()), None)


def _official_sources(base: Path, kind: str) -> tuple[Path, ...]:
    """The list of labels, the folder of images, and for whole photos the folder of face boxes."""
    list_file, boxes = _list_file(base), base / BOXES
    assert list_file is not None
    return (list_file, base / "Image" / kind, *([boxes] if kind == "original" and boxes.is_dir() else []))


def read_official(base: Path, kind: str) -> Index:
    """The list's images, as `Image/aligned/<name>_aligned.*` or `Image/original/<name>.*`, in any format.

    The originals are whole photos, which packing crops to the square about `Annotation/boundingbox/<name>_*.txt`.
    """
    list_file, folder, *box_folders = _official_sources(base, kind)
    files = images_by_stem(folder)
    index = Index()
    index.use(list_file)
    with open_text(list_file) as file:
        for number, line in enumerate(file, start=1):
            if line.strip():
                result = _listed(line, f"{list_file}, line {number}", folder, files, kind)
                if isinstance(result, Sample) and box_folders:
                    result = _with_box(index, result, box_folders[0])
                index.add(result)
    if kind == "original" and not box_folders:
        index.notes.append(f"{folder} has whole photos, and there is no {BOXES} to crop their faces by")
    return index


def _with_box(index: Index, sample: Sample, folder: Path) -> Sample | Problem:
    path = folder / f"{sample.name}_boundingbox.txt"
    try:
        with open_text(path) as file:
            text = file.read(200)
        left, top, right, bottom = map(float, text.replace(",", " ").split())
    except (OSError, ValueError) as error:
        return Problem("row", str(path), f"no box of four numbers: {error}")
    index.use(path)
    box: Box = (left, top, right, bottom)
    return replace(sample, box=box)


def _listed(line: str, where: str, folder: Path, files: dict[str, Path], kind: str) -> Sample | Problem:
    words = re.split(r"[\s,;]+", line.strip())
    if len(words) < 2:
        return Problem("row", where, "expected a file name and a label")
    name = words[0]
    part = name.partition("_")[0]
    if inside(folder, name) is None:
        return Problem("outside", where, f"{name!r} leads out of {folder}")
    if part not in EXPECTED:
        return Problem("row", where, f"{name!r} begins with neither train_ nor test_")
    try:
        label = label_of(words[1])
    except ValueError as error:
        return Problem("label", f"{folder / name} ({where})", str(error))
    own = Path(name).stem.removesuffix("_aligned")
    stem = own + ("_aligned" if kind == "aligned" else "")
    if stem not in files:
        return Problem("missing", str(folder / f"{stem}.*"), f"no image for {where}")
    return Sample(own, label, part, files[stem])


FOLDERS = ClassFolders(canonical, dict(enumerate(ID_NAMES, start=1)))


def read_folders(base: Path, class_names: Sequence[str] | None = None) -> Index:
    """Class folders 1 to 7; labels in train_labels.csv and test_labels.csv, if present, must agree."""
    label_files, parts, rows = _label_files(base), part_folders(base), Index()
    labels = {part: _csv_labels(path, rows) for part, path in label_files.items() if part in parts}
    index = FOLDERS.read(base, parts, class_names, labels)
    index.problems += rows.problems
    index.use(*label_files.values())
    for part, names in labels.items():
        for name in sorted(names.keys() - {path.name for path in image_files(parts[part])}):
            index.add(Problem("missing", str(parts[part] / "*" / name), f"listed in {label_files[part]}"))
    return index


def _label_files(base: Path) -> dict[str, Path]:
    """Part -> its csv of labels, in `base` or its parent."""
    places = [(part, file_in(place, f"{part}_labels.csv")) for part in EXPECTED for place in (base.parent, base)]
    return {part: path for part, path in places if path is not None}


def _csv_labels(path: Path, index: Index) -> dict[str, str]:
    """File name -> class; rows without one are added to `index` as problems."""
    labels: dict[str, str] = {}
    with open_table(path, ("image", "label")) as table:
        for number, row in enumerate(table.by_column(), start=1):
            try:
                labels[str(row["image"])] = label_of(row["label"] or "")
            except (KeyError, ValueError) as error:
                index.add(Problem("row", f"{path}, row {number}", f"expected image,label: {error}"))
    return labels


def _official_layout(kind: str) -> Layout:
    return Layout(
        kind,
        f"EmoLabel/{LIST_FILES[0]} with Image/{kind}/",
        find=lambda root: _find_official(root, kind),
        read=lambda base, _: read_official(base, kind),
        sources=lambda base: _official_sources(base, kind),
        expected=EXPECTED,
    )


class RAFDBDataModule(FilesDataModule):
    """The official test images test; a stratified tenth of the training images validates (section 3.2.2)."""

    layouts: tuple[Layout, ...] = (
        _official_layout("aligned"),
        _official_layout("original"),
        FOLDERS.layout(
            "folders",
            "train/1 to 7/ and test/1 to 7/ with images, possibly in DATASET/",
            EXPECTED,
            read=read_folders,
            sources=lambda base: [*part_folders(base).values(), *_label_files(base).values(), *side_files(base)],
        ),
    )
