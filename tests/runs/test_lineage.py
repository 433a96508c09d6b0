"""The images that a network comes from: its own training's, and those of every run before it."""

from pathlib import Path

import numpy as np
import pytest
from helpers.composed import composed
from helpers.datasets import SEVEN, class_folders
from helpers.networks import write_checkpoint

from fer_voting.config import make
from fer_voting.evaluate import evaluate
from fer_voting.experiment import train
from fer_voting.results.sweep_table import sweep_table
from fer_voting.runs.lineage import Lineage, inherited_lines, overlap_lines
from fer_voting.runs.run import Run
from fer_voting.runs.sweeps import Sweep


def hashes(*numbers: int) -> np.ndarray:
    return np.array([number.to_bytes(16, "big") for number in numbers], "V16")


NONE = Lineage({}, ())


def test_three_generations_and_a_teacher_with_what_is_not_known(tmp_path: Path) -> None:
    a, b, c, teacher = (Run(tmp_path, name) for name in ("a", "b", "c", "teacher"))
    NONE.keep(a, hashes(3, 1, 2, 2))
    Lineage.of_network(a, "").keep(b, hashes(4, 5))
    Lineage.of_network(None, "bare.ckpt").keep(teacher, hashes(6, 7))
    Lineage.joined(Lineage.of_network(run, "") for run in (b, teacher)).keep(c, hashes(8))
    lineage = Lineage.of_network(c, "")
    assert list(lineage.images) == ["c", "b", "a", "teacher"]
    assert lineage.images["a"].tolist() == hashes(1, 2, 3).tolist()
    assert lineage.unknown == ("bare.ckpt",)
    overlap = lineage.overlap({"val": hashes(9, 10), "test": hashes(0, 2, 2, 5, 6, 11)})
    assert overlap == {
        "images": {"val": 0, "test": 4},
        "by_run": {
            "c": {"val": 0, "test": 0},
            "b": {"val": 0, "test": 1},
            "a": {"val": 0, "test": 2},
            "teacher": {"val": 0, "test": 1},
        },
        "unknown": ["bare.ckpt"],
    }
    assert overlap_lines(overlap) == [
        "4 test images are among those that b, a, teacher was trained on",
        "it is not known which images bare.ckpt was trained on",
    ]


def test_nothing_is_inherited_of_nothing(tmp_path: Path) -> None:
    overlap = NONE.overlap({"test": hashes(1)})
    assert overlap == {"images": {"test": 0}, "by_run": {}, "unknown": []}
    assert overlap_lines(overlap) == []


def test_runs_of_one_name_are_joined_and_a_renamed_folder_counts_under_its_name(tmp_path: Path) -> None:
    first, second = Run(tmp_path / "x", "a"), Run(tmp_path / "y", "a")
    NONE.keep(first, hashes(1, 2))
    NONE.keep(second, hashes(2, 3))
    joined = Lineage.joined(Lineage.of_network(run, "") for run in (first, second))
    assert joined.images["a"].tolist() == hashes(1, 2, 3).tolist()
    second.dir.rename(second.dir.with_name("b"))
    assert list(Lineage.of_network(Run(tmp_path / "y", "b"), "").images) == ["b"]


def test_a_run_called_as_one_before_it_has_the_images_of_both(tmp_path: Path) -> None:
    run = Run(tmp_path, "a")
    Lineage({"a": hashes(1, 2)}, ()).keep(run, hashes(3))
    assert Lineage.of_network(run, "").images["a"].tolist() == hashes(1, 2, 3).tolist()


def test_a_run_without_the_file_is_not_known_and_a_damaged_one_is_named(tmp_path: Path) -> None:
    run = Run(tmp_path, "a")
    assert Lineage.of_network(run, "") == Lineage({}, ("a",))
    NONE.keep(run, hashes(1))
    run.lineage_file.write_bytes(run.lineage_file.read_bytes()[:50])
    with pytest.raises(ValueError, match=r"trained_on\.npz is damaged"):
        Lineage.of_network(run, "")
    np.savez(run.lineage_file, images=hashes(1), runs=np.array(["a"]), trained=np.ones((2, 1), bool), unknown=[""])
    with pytest.raises(ValueError, match="its arrays do not fit each other"):
        Lineage.of_network(run, "")


# --- trainings --------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """126 images in a folder a class: `dataset.data_seed` draws which of them validate and test."""
    root = tmp_path_factory.mktemp("lineage")
    names = {name: name for name in SEVEN}
    class_folders(root, {"faces": dict.fromkeys(SEVEN, 18)}, names)
    return root / "faces"


def words_of(folder: Path, data_seed: int) -> list[str]:
    data = ["dataset=folder", f"dataset.root={folder}", "dataset.size=24", "dataset.batch_size=32", "split=baseline"]
    data += ["dataset.test_fraction=0.3", f"dataset.data_seed={data_seed}", f"output_dir={folder.parent / 'outputs'}"]
    return [*data, "model.width=4", "trainer.max_epochs=1", "logger=none", "plots=false"]


def parts_of(folder: Path, data_seed: int) -> dict[str, list[bytes]]:
    """Independently of the lineage: the files of each part."""
    data = make(composed(words_of(folder, data_seed)).dataset, seed=0, augment=None)
    data.setup()
    return {part: [(folder / name).read_bytes() for name in data.names(part)] for part in ("train", "val", "test")}


@pytest.mark.slow
def test_images_that_a_run_before_was_trained_on_are_counted_by_training_evaluation_and_tables(
    folder: Path, messages: pytest.LogCaptureFixture
) -> None:
    a, b, c = (parts_of(folder, data_seed) for data_seed in (0, 1, 2))

    def common(first: list[bytes], second: list[bytes]) -> int:
        return sum(content in set(second) for content in first)

    train(composed([*words_of(folder, 0), "name=a"]))
    assert "are among those" not in messages.text
    result = train(composed([*words_of(folder, 1), "name=b", "init_from=a"]))
    expected = {part: common(b[part], a["train"]) for part in ("val", "test")}
    assert expected["test"] > 10
    assert result["inherited"] == {"images": expected, "by_run": {"a": expected}, "unknown": []}
    line = f"{expected['test']} test images are among those that a was trained on"
    assert f"b: {line}, from which this run starts or learns" in messages.text
    # The third generation knows the first, whose folder is gone; a checkpoint of nowhere is not known.
    outputs = folder.parent / "outputs"
    Run(outputs, "a").dir.rename(folder.parent / "elsewhere")
    teacher = write_checkpoint(folder.parent / "teacher.ckpt", split="baseline")
    words = [*words_of(folder, 2), "name=c", "init_from=b", f"teacher={teacher}"]
    result = train(composed(words))
    assert result["inherited"]["by_run"]["a"]["test"] == common(c["test"], a["train"])
    assert result["inherited"]["by_run"]["b"]["test"] == common(c["test"], b["train"])
    assert result["inherited"]["images"]["test"] == common(c["test"], [*a["train"], *b["train"]])
    assert result["inherited"]["unknown"] == ["teacher.ckpt"]
    # An evaluation of the second generation on its own test part, from another folder of packs.
    data = [word for word in words_of(folder, 1) if word.startswith(("dataset", "output_dir")) and "size=" not in word]
    _, evaluated = evaluate(composed([*data, "checkpoint=b", "plots=false"], "evaluate"))
    assert evaluated["images_trained_on"]["by_run"] == {"b": {"test": 0}, "a": {"test": expected["test"]}}
    # Tables say it.
    sweep = Sweep(outputs / "sweeps" / "mine")
    sweep.write([], [{"overrides": [], "run": "b", "voting": "soft"}])
    assert "Inherited: b: " in sweep_table(sweep)[0]
    assert line in sweep_table(sweep)[0]


def test_a_line_for_each_run_that_inherits() -> None:
    inherited = {"images": {"test": 34}, "by_run": {"a": {"test": 34}}, "unknown": ["x.ckpt"]}
    results = [{"name": "old"}, {"name": "b", "inherited": inherited}]
    assert inherited_lines(results) == [
        "b: 34 test images are among those that a was trained on; it is not known which images x.ckpt was trained on"
    ]
