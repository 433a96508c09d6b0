"""RAF-DB, basic expressions (Li and Deng 2019, doi:10.1109/TIP.2018.2868382): the official files and class folders."""

import csv
from pathlib import Path
from typing import ClassVar

from fer_voting.data.files import FilesDataModule, Layout, part_folders, part_folders_layout, read_class_folders
from fer_voting.data.index import Index, Problem, Sample, bases, image_files, images_by_stem, inside, open_table
from fer_voting.data.labels import canonical

# Ids 1 to 7.
ID_NAMES = ("surprise", "fear", "disgust", "happy", "sad", "anger", "neutral")
LIST_FILES = ("list_patition_label.txt", "list_partition_label.txt")  # the first is the authors' spelling
EXPECTED = {
    "train": dict(zip(ID_NAMES, (1290, 281, 717, 4772, 1982, 705, 2524), strict=True)),
    "test": dict(zip(ID_NAMES, (329, 74, 160, 1185, 478, 162, 680), strict=True)),
}


def label_of(text: str) -> str:
    """The class of an id 1 to 7 or of a name. Raises ValueError for anything else."""
    text = text.strip()
    if text.isdigit():
        if not 1 <= int(text) <= len(ID_NAMES):
            raise ValueError(f"label {text} is not 1 to {len(ID_NAMES)}")
        return ID_NAMES[int(text) - 1]
    return canonical(text)


def _list_file(base: Path) -> Path | None:
    files = (base / "EmoLabel" / name for name in LIST_FILES)
    return next((path for path in files if path.is_file()), None)


def _find_official(root: Path, kind: str) -> Path | None:
    return next((base for base in bases(root) if _list_file(base) and (base / "Image" / kind).is_dir()), None)


def _official_sources(base: Path, kind: str) -> tuple[Path, Path]:
    """The list of labels and the folder of images."""
    list_file = _list_file(base)
    assert list_file is not None
    return list_file, base / "Image" / kind


def read_official(base: Path, kind: str) -> Index:
    """The list's images, as `Image/aligned/<name>_aligned.*` or `Image/original/<name>.*`, in any format."""
    list_file, folder = _official_sources(base, kind)
    files = images_by_stem(folder)
    index = Index()
    for number, line in enumerate(_text(list_file).splitlines(), start=1):
        if line.strip():
            index.add(_listed(line, f"{list_file}, line {number}", folder, files, kind))
    return index


def _text(path: Path) -> str:
    with open_table(path) as file:
        return file.read()


def _listed(line: str, where: str, folder: Path, files: dict[str, Path], kind: str) -> Sample | Problem:
    words = line.split()
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
    stem = Path(name).stem + ("_aligned" if kind == "aligned" else "")
    if stem not in files:
        return Problem("missing", str(folder / f"{stem}.*"), f"no image for {where}")
    return Sample(Path(name).stem, label, part, files[stem])


def read_folders(base: Path) -> Index:
    """Class folders 1 to 7; labels in train_labels.csv and test_labels.csv, if present, must agree."""
    index, label_files = Index(), _label_files(base)
    for part, folder in part_folders(base).items():
        labels = _csv_labels(label_files[part], index) if part in label_files else {}
        read_class_folders(index, base, folder, part, label_of, labels)
        for name in sorted(labels.keys() - {path.name for path in image_files(folder)}):
            index.add(Problem("missing", str(folder / "*" / name), f"listed in {label_files[part]}"))
    return index


def _label_files(base: Path) -> dict[str, Path]:
    """Part -> its csv of labels, in `base` or its parent."""
    places = [(part, place / f"{part}_labels.csv") for part in EXPECTED for place in (base.parent, base)]
    return {part: path for part, path in places if path.is_file()}


def _csv_labels(path: Path, index: Index) -> dict[str, str]:
    """File name -> class; rows without one are added to `index` as problems."""
    labels: dict[str, str] = {}
    with open_table(path) as file:
        for number, row in enumerate(csv.DictReader(file), start=1):
            try:
                labels[row["image"]] = label_of(row["label"])
            except (KeyError, ValueError, AttributeError) as error:
                index.add(Problem("row", f"{path}, row {number}", f"expected image,label: {error}"))
    return labels


def _official_layout(kind: str) -> Layout:
    return Layout(
        kind,
        f"EmoLabel/{LIST_FILES[0]} with Image/{kind}/",
        find=lambda root: _find_official(root, kind),
        read=lambda base: read_official(base, kind),
        sources=lambda base: _official_sources(base, kind),
        expected=EXPECTED,
    )


class RAFDBDataModule(FilesDataModule):
    """The official test images test; a stratified tenth of the training images validates (section 3.2.2)."""

    layouts: ClassVar[tuple[Layout, ...]] = (
        _official_layout("aligned"),
        _official_layout("original"),
        part_folders_layout(
            "folders",
            "train/1 to 7/ and test/1 to 7/ with images, possibly in DATASET/",
            label_of,
            EXPECTED,
            read=read_folders,
            sources=lambda base: [*part_folders(base).values(), *_label_files(base).values()],
        ),
    )
