"""The contact sheet shows the images and the predictions that a run has stored, and never a person."""

from pathlib import Path

import numpy as np
import pytest
from helpers.composed import composed
from helpers.runs import CLASSES, make_run
from helpers.train import TINY

from experiments.contact_sheet import RIGHT, WRONG, contact_sheet, main
from fer_voting.config import make
from fer_voting.runs.run import Run

pytestmark = pytest.mark.slow

ROWS = 2


def test_the_first_test_images_of_each_class_with_their_predictions(tmp_path: Path):
    words = [*TINY, "split=m1", "seed=0"]
    data = make(composed([*words, f"output_dir={tmp_path}"]).dataset)
    data.setup()
    positions = data.positions("test")
    labels = data.class_ids(data.pack)[positions].tolist()
    decided = [(label + 1) % len(CLASSES) if i % 2 else label for i, label in enumerate(labels)]
    made = make_run(tmp_path, words, {"test": decided}, labels, names=data.names("test"))

    axes = np.array(contact_sheet(made, ROWS).axes).reshape(ROWS, len(CLASSES))
    assert [cell.get_title() for cell in axes[0]] == list(CLASSES)
    for label, column in enumerate(axes.T):
        shown = [i for i, of_image in enumerate(labels) if of_image == label][:ROWS]
        for cell, i in zip(column, shown, strict=False):
            (image,) = cell.get_images()
            assert np.array_equal(image.get_array(), data.pack.images[positions[i]])
            (text,) = cell.texts
            assert text.get_text() == f"{CLASSES[decided[i]]}\n3 of 3 crops"
            assert text.get_color() == (WRONG if i % 2 else RIGHT)
        assert [len(cell.get_images()) for cell in column] == [1] * len(shown) + [0] * (ROWS - len(shown))


def test_the_command_writes_the_picture(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    words = [*TINY, "split=m1", "seed=0"]
    run = make_run(tmp_path, words, {"test": [0]}, [0], names=["test/000000"])
    main([run.name, "--output-dir", str(tmp_path), "--rows", "1"])
    assert (run.dir / "contact_sheet.png").stat().st_size > 1000
    assert "contact_sheet.png" in capsys.readouterr().out


def test_a_data_set_of_people_is_refused(tmp_path: Path):
    run = make_run(tmp_path, ["dataset=fer2013", "split=m1", "seed=0"], {"test": [0, 1]}, [0, 1])
    with pytest.raises(ValueError, match="fer2013"):
        contact_sheet(run, ROWS)


def test_a_run_that_is_not_finished_or_was_not_tested_is_refused(tmp_path: Path):
    with pytest.raises(ValueError, match="missing"):
        contact_sheet(Run(tmp_path, "faces-m1-seed0"), ROWS)
    run = make_run(tmp_path, ["dataset=faces", "split=m1", "seed=0"], {"val": [0, 1]}, [0, 1])
    with pytest.raises(ValueError, match=r"soft-test\.npz is missing"):
        contact_sheet(run, ROWS)
