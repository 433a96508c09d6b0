"""ExpW (Zhang et al. 2018, doi:10.1007/s11263-017-1055-1): whole photos, and a list of faces with their boxes."""

from pathlib import Path

from fer_voting.data.files import Layout, SampledDataModule
from fer_voting.data.index import Index, ListedFiles, Problem, Sample, bases
from fer_voting.data.sets.fer2013 import ID_NAMES
from fer_voting.data.tables import decimal_number, file_in, open_text, whole_number

FILE = "label.lst"
EXPECTED = {"train": dict(zip(ID_NAMES, (3671, 3995, 1088, 30537, 10559, 7060, 34883), strict=True))}


def _sources(root: Path) -> list[Path]:
    """The list, in the root or in `label/`, and the folder of the photos; [] if one is missing."""
    lists = [path for base in bases(root) for folder in (base, base / "label") if (path := file_in(folder, FILE))]
    folders = (base / name for base in bases(root) for name in ("image/origin", "origin", "image"))
    images = [folder for folder in folders if folder.is_dir()]
    return [lists[0], images[0]] if lists and images else []


def read_list(root: Path) -> Index:
    """The list's faces, a row each: photo, number of the face in it, box as top, left, right, bottom, the detector's
    confidence, expression. Packing crops the photos to the square about the box.
    """
    path, folder = _sources(root)
    index, images = Index(), ListedFiles(folder)
    index.use(path)
    with open_text(path) as file:
        for number, line in enumerate(file, start=1):
            if line.strip():
                _add_row(index, images, line, f"{path}, line {number}")
    return index


def _add_row(index: Index, images: ListedFiles, line: str, where: str) -> None:
    cells = line.rsplit(maxsplit=7)
    if len(cells) < 8:
        return index.add(Problem("row", where, f"{len(cells)} columns instead of 8"))
    if (found := images.find(cells[0].strip())) is None:
        return index.add(Problem("outside", where, f"{cells[0]!r} leads out of {images.folder}"))
    name, path = found
    index.use(path)
    try:
        label = dict(enumerate(ID_NAMES))[whole_number(cells[7])]
    except (KeyError, ValueError):
        return index.add(
            Problem("label", f"{path} ({where})", f"expression {cells[7]!r} is not 0 to {len(ID_NAMES) - 1}")
        )
    try:
        top, left, right, bottom = map(decimal_number, cells[2:6])
    except ValueError as error:
        return index.add(Problem("row", where, f"face box: {error}"))
    return index.add(Sample(f"{name}#{cells[1]}", label, "train", path, box=(left, top, right, bottom)))


class ExpWDataModule(SampledDataModule):
    """Faces of photos from the web; there are no parts, and no person is named."""

    layouts: tuple[Layout, ...] = (
        Layout(
            "list",
            f"{FILE} (in label/) with image/origin/",
            find=lambda root: root if _sources(root) else None,
            read=lambda base, _: read_list(base),
            sources=_sources,
            expected=EXPECTED,
        ),
    )
