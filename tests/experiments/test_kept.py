"""Stored facts about FER2013's test images, and files that do not belong together. `test_studies` keeps whole runs."""

from pathlib import Path

import numpy as np
import pytest
from helpers.datasets import SEVEN, class_folders, fer2013_with_votes

from experiments.kept import find_faces, read_faces
from fer_voting.data.sets.fer2013 import FER2013DataModule


def data(root: Path, tmp_path: Path) -> FER2013DataModule:
    made = FER2013DataModule(name="fer2013", root=root, cache_dir=tmp_path / "packs", drop_leaks=True)
    made.setup()
    return made


def test_votes_belong_to_rows_by_their_number(tmp_path: Path) -> None:
    fer2013_with_votes(tmp_path)
    module = data(tmp_path, tmp_path)
    faces = find_faces(module, module.positions("test"))
    assert faces.rows.tolist() == list(range(84, 113))
    assert faces.votes is not None
    assert faces.votes[0].tolist() == [0, 0, 0, 0, 8, 0, 0, 0, 0, 0]  # row 84: fear
    assert faces.votes[1, -2] == 5  # row 85: unknown
    assert [SEVEN[label] for label in faces.labels[:5]] == ["neutral"] * 4 + ["happy"]
    assert faces.in_training[-1]
    some = find_faces(module, module.positions("test")[[3, 1]])
    assert some.rows.tolist() == [87, 85]
    assert np.array_equal(some.votes, faces.votes[[3, 1]])


def test_votes_of_another_file_are_refused(tmp_path: Path) -> None:
    fer2013_with_votes(tmp_path)
    module = data(tmp_path, tmp_path)
    path = tmp_path / "fer2013new.csv"
    lines = path.read_text().splitlines()
    for wrong in ([*lines[:1], *lines[2:]], [*lines[:1], *reversed(lines[1:])]):
        path.write_text("\n".join(wrong) + "\n")
        with pytest.raises(ValueError, match="does not belong to the csv beside it"):
            find_faces(module, module.positions("test"))
    path.unlink()
    assert find_faces(module, module.positions("test")).votes is None


def test_class_folders_have_no_rows(tmp_path: Path) -> None:
    names = {label: label for label in SEVEN}
    class_folders(tmp_path, {"train": dict.fromkeys(SEVEN, 12), "test": dict.fromkeys(SEVEN, 2)}, names)
    module = data(tmp_path, tmp_path)
    with pytest.raises(ValueError, match="must be FER2013's csv"):
        find_faces(module, module.positions("test"))


def test_damaged_files_say_so(tmp_path: Path) -> None:
    (tmp_path / "faces.npz").write_bytes(b"PK\x03\x04 and nothing more")
    with pytest.raises(ValueError, match=r"faces\.npz is damaged"):
        read_faces(tmp_path)
    np.savez(tmp_path / "faces.npz", rows=np.zeros(3, np.int32))
    with pytest.raises(ValueError, match="lacks the array labels"):
        read_faces(tmp_path)
