import json
import shutil
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest

from fer_voting.data.faces import module as faces_module
from fer_voting.data.faces.module import FacesDataModule, image_and_person, renderer_digest
from fer_voting.data.faces.parameters import complete_units, draw_units, valence_and_arousal
from fer_voting.data.index import PARTS
from fer_voting.data.labels import CLASSES


def faces(tmp_path: Path, **arguments: Any) -> FacesDataModule:
    sizes = {"train_size": 60, "val_size": 20, "test_size": 20}
    return FacesDataModule(name="faces", cache_dir=tmp_path / "packs", **sizes | arguments)


def test_sizes_and_imbalance(tmp_path: Path) -> None:
    data = faces(tmp_path)
    data.setup()
    counts = data.counts()
    assert {part: sum(classes.values()) for part, classes in counts.items()} == {"train": 60, "val": 20, "test": 20}
    assert data.class_names == CLASSES[:7]
    # 60 shared out as RAF-DB's 12,271: neutral 2524, happy 4772, sad 1982, surprise 1290, fear 281, ...
    assert counts["train"] == {
        "neutral": 12, "happy": 23, "sad": 10, "surprise": 6, "fear": 1, "disgust": 4, "anger": 4
    }  # fmt: skip
    assert data.synthetic


def test_the_data_set_depends_on_its_own_seed_not_on_the_runs(tmp_path: Path) -> None:
    first, again, other = faces(tmp_path / "a"), faces(tmp_path / "b", seed=9), faces(tmp_path / "c", data_seed=1)
    for data in (first, again, other):
        data.setup()
    assert (first.pack.images == again.pack.images).all()
    assert first.fingerprint == again.fingerprint != other.fingerprint
    assert not (first.pack.images == other.pack.images).all(axis=(1, 2, 3)).any()


def test_valence_and_arousal_follow_from_the_action_units(tmp_path: Path) -> None:
    pack = faces(tmp_path).make_pack()
    row = pack.names().index("val/000003")
    units = draw_units(0, image_and_person("val", 3)[0], pack.labels[pack.label_ids[row]])
    values = [pack.column(name)[row] for name in ("valence", "arousal")]
    assert values == list(valence_and_arousal(units))
    by_class = {label: pack.class_ids((label,)) == 0 for label in pack.labels}
    means = {label: pack.column("valence")[rows].mean() for label, rows in by_class.items()}
    assert means["happy"] > 0.3 > 0 > means["sad"]


@pytest.mark.parametrize(
    ("expression", "valence", "arousal"),
    [
        ("neutral", 0, 0),
        ("happy", 0.7 * 1 + 0.1 * 0.9, 0.2 * 1 + 0.1 * 0.9 + 0.1 * 0.7),
        ("surprise", 0, 0.15 * 1 + 0.4 * 0.8 + 0.1 * 0.8 + 0.25 * 1),
        ("sad", -0.3 * 0.6 - 0.5 * 1 - 0.1 * 0.5, 0.1 * 0.6 - 0.35 * 1 - 0.05 * 0.5 - 0.4 * 0.2),
    ],
)
def test_valence_and_arousal_by_hand(expression: str, valence: float, arousal: float) -> None:
    assert valence_and_arousal(complete_units(expression)) == pytest.approx((valence, arousal))
    assert valence_and_arousal(np.ones((17, 2)) * 9) == (-1, 1)  # clipped


def test_images_are_all_different_and_cached(tmp_path: Path) -> None:
    data = faces(tmp_path)
    pack = data.make_pack()
    assert len(np.unique(pack.hashes)) == len(pack) == 100
    assert faces(tmp_path).make_pack().folder == pack.folder
    assert faces(tmp_path, train_size=61).make_pack().folder != pack.folder


def test_every_source_file_of_the_pixels_is_in_the_packs_key(tmp_path: Path) -> None:
    """A change of any of them, of OpenCV or of NumPy makes a pack out of date."""
    folder = Path(faces_module.__file__).parent
    seen = {renderer_digest()}
    assert {"geometry.py", "parameters.py", "renderer.py", "module.py"} <= {path.name for path in folder.glob("*.py")}
    for path in folder.glob("*.py"):
        copy = tmp_path / path.stem
        shutil.copytree(folder, copy, ignore=shutil.ignore_patterns("__pycache__"))
        assert renderer_digest(copy) == renderer_digest()
        (copy / path.name).write_text(path.read_text() + "\n# changed\n")
        seen.add(renderer_digest(copy))
    assert len(seen) == 1 + len(list(folder.glob("*.py")))
    state = faces(tmp_path).source().state
    assert (state["source"], state["opencv"], state["numpy"]) == (renderer_digest(), cv2.__version__, np.__version__)


@pytest.mark.parametrize("name", ["source", "opencv", "numpy", "counts"])
def test_a_pack_of_another_renderer_is_drawn_again(tmp_path: Path, caplog: pytest.LogCaptureFixture, name: str) -> None:
    pack = faces(tmp_path).make_pack()
    drawn = pack.images.copy()
    meta = json.loads((pack.folder / "pack.json").read_text())
    meta["key"][name] = "another"
    (pack.folder / "pack.json").write_text(json.dumps(meta))
    np.save(pack.folder / "images.npy", np.zeros_like(drawn))
    assert (faces(tmp_path).make_pack().images == drawn).all()
    assert f"is out of date ({name} changed): it is rebuilt" in caplog.text


@pytest.mark.parametrize("size", [23, 257])
def test_a_size_that_faces_are_not_drawn_in_is_an_error(tmp_path: Path, size: int) -> None:
    with pytest.raises(ValueError, match=rf"dataset\.size={size} must be 24 to 256 for drawn faces"):
        faces(tmp_path, size=size)


def test_no_image_and_no_person_is_in_two_parts() -> None:
    numbers = {part: [image_and_person(part, number) for number in range(1000)] for part in PARTS}
    images = [image for part in PARTS for image, _ in numbers[part]]
    assert len(set(images)) == 3000
    people = [{person for _, person in numbers[part]} for part in PARTS]
    assert len(set.union(*people)) == sum(map(len, people)) == 750


def test_a_size_too_small_for_seven_classes_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"dataset\.val_size=6 must be at least 7"):
        faces(tmp_path, val_size=6)
