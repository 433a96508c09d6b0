"""Runs that another one needs (the selection of a refit, initial weights, a teacher): a name finds them; their
configuration, their data and the weights that they began with decide whether they are taken."""

import shutil
from pathlib import Path

import pytest
from helpers.composed import composed
from helpers.train import TINY
from omegaconf import DictConfig, OmegaConf

from fer_voting.config import make
from fer_voting.experiment import train
from fer_voting.results.load import load_runs
from fer_voting.runs.naming import row_of, settle
from fer_voting.runs.run import Run
from fer_voting.system.atomic import read_json, write_json

pytestmark = pytest.mark.slow

WORDS = (
    "experiment=demo",
    "split=m3",
    "trainer.max_epochs=1",
    *(word for word in TINY if not word.startswith(("model", "trainer"))),
)


def config_of(output_dir: Path, *words: str) -> DictConfig:
    return composed([f"output_dir={output_dir}", *WORDS, *words])


@pytest.fixture(scope="module")
def outputs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An output folder with a finished run of WORDS, under the name that it gets and as `mine`."""
    folder = tmp_path_factory.mktemp("needed")
    for words in ([], ["name=mine"]):
        train(config_of(folder, *words))
    return folder


@pytest.fixture
def copied(outputs: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(outputs, tmp_path / "outputs"))


NEEDS = {
    "selection": ["refit=true"],
    "selection under a name": ["refit=true", "selection=mine"],
    "teacher": ["split=baseline", "teacher=m3"],
    "weights": ["init_from=faces", "name=other"],
}


@pytest.mark.parametrize("case", NEEDS)
def test_another_configuration_under_the_name_is_refused_before_the_data_are_read(copied: Path, case: str) -> None:
    config = settle(config_of(copied, *NEEDS[case], f"dataset.cache_dir={copied / 'none'}"))
    ((purpose, need),) = config.composition.needs.items()
    run = Run(copied, need.run)
    recorded = OmegaConf.load(run.dir / "config.yaml")
    recorded.optimizer.lr = 77
    OmegaConf.save(recorded, run.dir / "config.yaml")
    message = rf"is not the {purpose} that is needed: .*\(optimizer\.lr: 77 there, 0\.\S+ here\)"
    with pytest.raises(ValueError, match=message):
        train(config)
    assert not (copied / "none").exists()


@pytest.mark.parametrize("case", ["selection", "selection under a name", "teacher"])
def test_other_data_under_the_name_is_refused(copied: Path, case: str) -> None:
    """Every image is another, and there are as many: only digests tell."""
    config = settle(config_of(copied, *NEEDS[case]))
    ((purpose, need),) = config.composition.needs.items()
    run = Run(copied, need.run)
    inputs = read_json(run.dir / "inputs.json")
    inputs["data"]["fingerprint"], inputs["data"]["digests"]["test"] = "a" * 32, "b" * 32
    write_json(run.dir / "inputs.json", inputs)
    with pytest.raises(ValueError, match=rf"not the {purpose} .*other inputs \(data\.fingerprint: aa.* there") as error:
        train(config)
    assert "data.digests.test" in str(error.value)
    assert "data.digests.val" not in str(error.value)


def test_a_selection_that_began_with_other_weights_is_refused(copied: Path) -> None:
    config = settle(config_of(copied, "refit=true"))
    run = Run(copied, config.composition.needs.selection.run)
    inputs = read_json(run.dir / "inputs.json")
    write_json(run.dir / "inputs.json", inputs | {"initial_weights": {"sha256": "0"}})
    with pytest.raises(ValueError, match=r"not the selection .*initial_weights\.sha256: 0 there"):
        train(config)


def test_a_refit_takes_the_selection_that_it_names(copied: Path) -> None:
    shutil.rmtree(Run(copied, settle(config_of(copied)).name).dir)
    with pytest.raises(FileNotFoundError, match=r"is needed first, .* \(or name another: selection=\.\.\.\)"):
        train(config_of(copied, "refit=true"))
    result = train(config_of(copied, "refit=true", "selection=mine"))
    assert result["status"] == "finished"
    assert result["data"]["selection"] == Run(copied, "mine").result()["data_fingerprint"]  # type: ignore[index]


def test_a_selection_without_a_refit_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"selection=mine .*add refit=true"):
        settle(config_of(tmp_path, "selection=mine"))


def test_values_that_no_override_gives_cannot_name_the_needed_run(tmp_path: Path) -> None:
    config = config_of(tmp_path, "refit=true")
    config.optimizer.lr = 0.5
    with pytest.raises(ValueError, match=r"do not give all of its values \(optimizer\.lr: 0\.\S+ there, 0\.5 here\)"):
        settle(config)


@pytest.mark.parametrize("drop_leaks", [False, True])
def test_a_refits_data_know_those_of_its_selection(tmp_path: Path, drop_leaks: bool) -> None:
    node = config_of(tmp_path, f"dataset.drop_leaks={drop_leaks}").dataset
    selection, refit = (make(node, seed=0, augment=None, refit=refit) for refit in (False, True))
    selection.setup()
    refit.setup()
    assert refit.selection_summary() == selection.selection_summary() == selection.data_summary()
    assert refit.data_summary()["selection"] == selection.fingerprint != refit.fingerprint


def test_runs_whose_sources_differ_only_in_the_seed_are_averaged(copied: Path) -> None:
    """Whatever the sources are called, and whether a name, a folder or a checkpoint names them."""
    train(config_of(copied, "seed=1", "name=second"))
    train(config_of(copied, "seed=1", "optimizer.lr=1e-3", "name=faster"))
    runs = copied / "runs"
    sources = {"a": (0, "mine"), "b": (1, runs / "second"), "c": (2, runs / "mine" / "checkpoints" / "best-soft.ckpt")}
    for name, (seed, source) in {**sources, "d": (3, "faster")}.items():
        train(config_of(copied, f"seed={seed}", f"init_from='{source}'", f"name={name}"))
    other, alike = load_runs(copied, ["a", "b", "c", "d"]).groups()  # by variant: from_faster, from_mine
    assert [run.name for run in alike.finished("m3")] == ["a", "b", "c"]
    assert [run.name for run in other.finished("m3")] == ["d"]
    assert {run.config["composition"]["row"] for run in alike.runs} == {row_of(alike.runs[0].config)}
