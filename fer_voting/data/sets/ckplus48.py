"""The faces of CK+ at 48 x 48 pixels, as they are shared: class folders, and a csv like FER2013's."""

from pathlib import Path

from fer_voting.data.files import Layout
from fer_voting.data.index import Index
from fer_voting.data.sets.fer2013 import ID_NAMES, read_csv
from fer_voting.data.sets.named import NamedDataModule
from fer_voting.data.tables import file_in

FILE = "ckextended.csv"


def _sources(base: Path) -> list[Path]:
    path = file_in(base, FILE)
    return [path] if path else []


def _read(path: Path) -> Index:
    """The csv's rows: FER2013's classes and contempt."""
    index = read_csv(path, (*ID_NAMES, "contempt"))
    index.notes.append(f"{path.name} names no person: the same may be in several parts")
    return index


class CKPlus48DataModule(NamedDataModule):
    """Class folders with CK+'s file names, or the csv, whose parts are used."""

    layouts: tuple[Layout, ...] = (
        Layout(
            "csv",
            FILE,
            find=lambda root: root if _sources(root) else None,
            read=lambda base, _: _read(_sources(base)[0]),
            sources=_sources,
        ),
    )
