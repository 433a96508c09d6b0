"""Commands for missing runs: they make exactly these, at the estimated cost."""

import fcntl
import shlex
from pathlib import Path

import pytest
from helpers.composed import composed
from helpers.runs import make_run
from omegaconf import OmegaConf

from fer_voting.models import VotingResNet18
from fer_voting.models.cost import count_gmacs
from fer_voting.models.timm_network import timm_network
from fer_voting.results.load import RunTable, load_runs
from fer_voting.results.missing import audit_command, missing_runs
from fer_voting.runs.naming import settle
from fer_voting.runs.sweeps import job_overrides

pytestmark = pytest.mark.slow

LABELS = [0, 1, 2, 3, 4, 5, 6]
RIGHT = {"val": LABELS, "test": LABELS}
SPLITS = ["m1", "baseline"]
NO_RUNS = RunTable(Path("outputs"), [], {})


def names_that(command: str) -> list[str]:
    """Names of the runs that a sweep's command makes."""
    words = shlex.split(command)
    assert words[:4] == ["python", "-m", "fer_voting.train", "-m"]
    return [settle(composed(job))["name"] for job in job_overrides(words[4:])]


@pytest.mark.parametrize(
    ("dataset", "variant", "refit"),
    [("affectnet", "", ""), ("affectnet", "", "soft"), ("fer2013", "fer2013_small", ""), ("faces", "demo", "hard")],
)
def test_command_makes_what_is_missing(dataset: str, variant: str, refit: str) -> None:
    section = NO_RUNS.group(dataset, variant, seeds=[0])
    gap = missing_runs(NO_RUNS, section, SPLITS, refit)
    assert gap is not None
    assert gap.jobs == 2
    assert names_that(gap.command) == [section.run_name(split, 0, refit) for split in SPLITS]


def test_command_of_a_variant_comes_from_its_runs(tmp_path: Path) -> None:
    words = ["experiment=table3", "dataset=faces", "model.width=4", "split=m1", "seed=0", "logger=none"]
    run = make_run(tmp_path, [*words, "continue_from=other"], RIGHT, LABELS)
    runs = load_runs(tmp_path)
    section = runs.group("faces", "width4", seeds=[0, 1])
    gap = missing_runs(runs, section, SPLITS)
    assert gap is not None
    assert gap.command == (
        f"python -m fer_voting.train -m dataset=faces model.width=4 output_dir={tmp_path} split=m1,baseline seed=0,1"
    )
    assert gap.jobs == 3
    assert set(names_that(gap.command)) > set(section.missing("m1")) | set(section.missing("baseline"))

    config = OmegaConf.load(run.dir / "config.yaml")
    config.composition.overrides.append("model._target_=os.system")  # a stranger's
    OmegaConf.save(config, run.dir / "config.yaml")
    runs = load_runs(tmp_path)
    gap = missing_runs(runs, runs.group("faces", "width4", seeds=[0, 1]), SPLITS)
    assert gap is not None
    assert "<what makes the variant width4>" in gap.command
    assert "os.system" not in gap.command


def test_nothing_missing_gives_no_command(tmp_path: Path) -> None:
    make_run(tmp_path, ["dataset=faces", "split=m1", "seed=0", "model.width=4"], RIGHT, LABELS)
    runs = load_runs(tmp_path)
    assert missing_runs(runs, runs.group("faces", "width4", seeds=[0]), ["m1"]) is None


def test_what_is_under_way_is_not_asked_for_again(tmp_path: Path) -> None:
    for seed in (0, 1):
        words = ["dataset=faces", "split=m1", f"seed={seed}", "model.width=4"]
        run = make_run(tmp_path, words, RIGHT, LABELS, status="running")
    with (run.dir / ".lock").open("w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        runs = load_runs(tmp_path)
    gap = missing_runs(runs, runs.group("faces", "width4", seeds=[0, 1]), ["m1"])
    assert gap is not None
    assert gap.jobs == 1
    assert gap.command.endswith("split=m1 seed=0")


def test_cost_of_finished_runs_and_of_their_siblings(tmp_path: Path) -> None:
    make_run(tmp_path, ["dataset=faces", "split=m1", "seed=0", "model.width=4"], RIGHT, LABELS, seconds=60.0)
    runs = load_runs(tmp_path)
    section = runs.group("faces", "width4", seeds=[0, 1, 2])
    same = missing_runs(runs, section, ["m1"])
    assert same is not None
    assert same.seconds == pytest.approx(2 * 60)
    assert same.cost == "2 runs: about 2 min; as its finished runs took"
    other = missing_runs(runs, runs.group("faces", "width4", seeds=[0]), ["baseline"])
    assert other is not None
    ratio = count_gmacs(VotingResNet18("baseline", 7, width=4), 48) / count_gmacs(VotingResNet18("m1", 7, width=4), 48)
    assert other.seconds == pytest.approx(60 * ratio)


def test_cost_of_a_network_whose_weights_are_not_here(tmp_path: Path) -> None:
    """Weights do not change the count, and are not fetched for it."""
    pytest.importorskip("timm")
    run = make_run(tmp_path, ["dataset=faces", "split=m1", "seed=0", "model.width=4"], RIGHT, LABELS, seconds=60.0)
    words = ["dataset=faces", "dataset.size=64", "model=timm", "model.name=test_convnext", "model.pretrained=true"]
    config = OmegaConf.load(run.dir / "config.yaml")
    config.model = composed(words).model
    config.dataset.size = 64
    OmegaConf.save(config, run.dir / "config.yaml")
    runs = load_runs(tmp_path)
    gap = missing_runs(runs, runs.group("faces", "width4", seeds=[0]), ["baseline"])
    assert gap is not None
    gmacs = count_gmacs(timm_network("baseline", 7, 64, "test_convnext"), 64)
    assert gap.seconds == pytest.approx(60 * gmacs / count_gmacs(VotingResNet18("m1", 7, width=4), 48))


def test_cost_without_a_run_of_the_network_is_not_known(tmp_path: Path) -> None:
    make_run(tmp_path, ["dataset=faces", "split=m1", "seed=0", "model.width=4"], RIGHT, LABELS)
    for runs in (NO_RUNS, load_runs(tmp_path)):
        gap = missing_runs(runs, runs.group("affectnet", seeds=[0]), ["m1"])
        assert gap is not None
        assert gap.seconds is None
        assert gap.cost == "1 run: cost unknown: no run of this network is finished"
    unknown = missing_runs(NO_RUNS, NO_RUNS.group("fer2013", seeds=[0]), ["m1"])
    assert unknown is not None
    assert unknown.seconds is None
    assert "how many images" in unknown.cost


def test_cost_by_the_rate_of_another_data_sets_run(tmp_path: Path) -> None:
    run = make_run(tmp_path, ["dataset=faces", "split=m1", "seed=0"], RIGHT, LABELS, images_per_second=1.0)
    result = run.result()
    assert result is not None
    runs = load_runs(tmp_path)
    gap = missing_runs(runs, runs.group("rafdb", seeds=[0]), ["m1"])
    assert gap is not None
    assert gap.seconds == pytest.approx(6.656 * 11_044 * 40 / result["gmacs"], rel=1e-3)
    assert run.name in gap.basis
    assert "a made-up device" in gap.basis
    assert "days" in gap.cost


def test_audit_command() -> None:
    assert audit_command(NO_RUNS, NO_RUNS.group("faces")) == "python -m fer_voting.audit dataset=faces"
    assert audit_command(NO_RUNS, NO_RUNS.group("rafdb")) == (
        "python -m fer_voting.audit dataset=rafdb dataset.root=DIR"
    )
