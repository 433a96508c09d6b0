"""Every YAML composes; mistakes are explained; the command reports them."""

import os
from pathlib import Path

import pytest
from hydra.errors import InstantiationException
from hydra.utils import get_class, get_object
from omegaconf import OmegaConf

from fer_voting.config import CONF_DIR, compose_config, compose_with_choices, explain, flatten
from fer_voting.models import SPLITS
from fer_voting.runs.identity import resolve
from fer_voting.votes import VOTES

GROUPS = sorted(p.name for p in CONF_DIR.iterdir() if p.is_dir())
OPTIONS = [(path.parent.name, path.stem) for group in GROUPS for path in sorted((CONF_DIR / group).glob("*.yaml"))]


@pytest.mark.parametrize(("group", "option"), OPTIONS)
def test_every_option_of_every_group_composes_and_names_code_that_exists(group: str, option: str):
    config = resolve(compose_config([f"{group}={option}"]))
    for key, value in flatten(config).items():
        if key.endswith("_target_"):
            assert callable(get_object(value)), key
    assert get_class(config["dataset"]["_target_"])


def test_the_groups_are_those_that_the_readme_names():
    named = {
        "dataset",
        "split",
        "voting",
        "model",
        "optimizer",
        "augment",
        "trainer",
        "logger",
        "callbacks",
        "experiment",
    }
    assert named <= set(GROUPS)


def test_each_split_and_vote_has_its_yaml():
    assert {option for group, option in OPTIONS if group == "split"} == set(SPLITS)
    assert {option for group, option in OPTIONS if group == "voting"} == set(VOTES)


def test_the_papers_values_are_the_defaults():
    affectnet, rafdb = (resolve(compose_config([f"dataset={name}"])) for name in ("affectnet", "rafdb"))
    for config, epochs, gamma in ((affectnet, 20, 0.65), (rafdb, 40, 0.95)):
        assert config["trainer"]["max_epochs"] == epochs
        assert config["dataset"]["schedule"]["lr_gamma_per_epoch"] == gamma
        assert config["dataset"]["batch_size"] == 135
        assert config["dataset"]["size"] == 48
        assert config["optimizer"]["lr"] == 2e-4
        assert config["optimizer"]["_target_"] == "torch.optim.Adam"
        assert config["model"]["width"] == 64
    assert affectnet["dataset"]["balance"]["target"] == "mean"
    assert rafdb["dataset"]["balance"]["target"] == "none"
    assert rafdb["init_from"] == "affectnet"


def test_choices_come_with_the_configuration():
    config, choices = compose_with_choices(["split=m2"])
    assert config.split.name == "m2"
    assert choices["split"] == "m2"
    assert choices["experiment"] == "null"
    assert "hydra" not in config


def test_flatten():
    assert flatten({"a": {"b": 1, "c": {}}, "d": [1, 2]}) == {"a.b": 1, "d": [1, 2]}


def test_an_experiment_has_the_last_word_over_the_top_level(tmp_path: Path):
    assert compose_config(["experiment=demo"]).dataset.batch_size == 32


@pytest.mark.parametrize(
    ("error", "told"),
    [
        (ValueError("one\n  two"), "one; two"),
        (FileNotFoundError(2, "No such file", "x"), "[Errno 2] No such file: 'x'"),
        (KeyError("k"), "KeyError: 'k'"),
    ],
)
def test_explain(error: Exception, told: str):
    assert explain(error) == told


def test_the_environment_is_left_as_it_was(run_train):
    before = dict(os.environ)
    with pytest.raises(SystemExit):
        run_train("split=m9")
    assert os.environ.get("HYDRA_FULL_ERROR") == before.get("HYDRA_FULL_ERROR")


def test_the_traceback_is_shown_to_who_asks_for_it(run_train, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("HYDRA_FULL_ERROR", "1")
    with pytest.raises(InstantiationException, match="must be at least 1"):
        run_train("model.width=0")


def test_fast_precision_is_one_that_lightning_knows():
    assert OmegaConf.create({"p": "${fast_precision:}"}).p in ("bf16-mixed", "32-true")
