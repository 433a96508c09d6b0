"""Every YAML composes; mistakes are explained; the command reports them."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from helpers.composed import composed
from helpers.options import choices
from helpers.train import REPO, TINY
from hydra.errors import ConfigCompositionException
from hydra.utils import get_class, get_object
from omegaconf import OmegaConf

from fer_voting.config import CONF_DIR, as_typed, command, compose, explain, flatten
from fer_voting.models import SPLITS
from fer_voting.runs.identity import resolve
from fer_voting.train import main as train
from fer_voting.votes import ALL_VOTES

GROUPS = sorted(p.name for p in CONF_DIR.iterdir() if p.is_dir())
OPTIONS = [(path.parent.name, path.stem) for group in GROUPS for path in sorted((CONF_DIR / group).glob("*.yaml"))]


@pytest.mark.slow
@pytest.mark.parametrize("choice", choices(GROUPS), ids=" ".join)
def test_every_option_of_every_group_composes_and_names_code_that_exists(choice: tuple[str, ...]):
    config = resolve(compose(choice))
    for key, value in flatten(config).items():
        if key.endswith("_target_"):
            assert callable(get_object(value)), key
    assert get_class(config["dataset"]["_target_"])


def test_the_groups_are_those_that_the_readme_names():
    named = {
        "dataset",
        "split",
        "voting",
        "protocol",
        "model",
        "loss",
        "optimizer",
        "scheduler",
        "augment",
        "mix",
        "distillation",
        "trainer",
        "logger",
        "callbacks",
        "experiment",
    }
    assert named <= set(GROUPS)


def test_each_split_and_vote_has_its_yaml():
    assert {option for group, option in OPTIONS if group == "split"} == set(SPLITS)
    assert {option for group, option in OPTIONS if group == "voting"} == set(ALL_VOTES)


def test_the_papers_values_are_the_defaults():
    affectnet, rafdb = (resolve(compose([f"dataset={name}"])) for name in ("affectnet", "rafdb"))
    for config, epochs, gamma in ((affectnet, 20, 0.65), (rafdb, 40, 0.95)):
        assert config["trainer"]["max_epochs"] == epochs
        assert config["scheduler"]["_target_"] == "fer_voting.training.schedules.exponential"
        assert config["scheduler"]["lr_gamma_per_epoch"] == gamma
        assert config["dataset"]["batch_size"] == 135
        assert config["dataset"]["size"] == 48
        assert config["optimizer"]["lr"] == 2e-4
        assert config["optimizer"]["_target_"] == "torch.optim.Adam"
        assert config["model"]["width"] == 64
        assert config["mix"] == {}
        assert (config["loss"]["label_smoothing"], config["teacher"]) == (0, None)
    assert affectnet["dataset"]["balance"]["target"] == "mean"
    assert rafdb["dataset"]["balance"]["target"] == "none"
    assert rafdb["init_from"] == "affectnet"


def test_choices_come_with_the_configuration():
    config = compose(["split=m2"])
    choices = config.composition.options
    assert config.split.name == "m2"
    assert choices["split"] == "m2"
    assert choices["experiment"] == "null"
    assert "hydra" not in config


@pytest.mark.parametrize(
    ("word", "meant"),
    [
        ("name=2024_06_01", "name='2024_06_01'"),
        ("name=1e3,007", "name='1e3',007"),
        ("name=true", "name='true'"),
        ("name=null", "name=null"),
        ("name=r${seed}", "name=r${seed}"),
        ("name=it's", r"name='it\'s'"),
        ("sweep=007", "sweep=007"),
        ("output_dir=/data/Fotos (ä) #1", "output_dir='/data/Fotos (ä) #1'"),
        ("dataset.root=~/x", "dataset.root='HOME/x'"),
        ("dataset.root='~/x y'", "dataset.root='HOME/x y'"),
        ("output_dir=/not there yet/outputs", "output_dir='/not there yet/outputs'"),
        ("dataset.root=~/a,~/b", "dataset.root='HOME/a','HOME/b'"),
        ("dataset.root=/a=b", "dataset.root='/a=b'"),
        (r"dataset.group=(S\d{2,3})_|$", r"dataset.group='(S\d{2,3})_|$'"),
        ("dataset.group=null", "dataset.group=null"),
        ("dataset.root='a,b',1", "dataset.root='a,b',1"),
        ("dataset.root=choice(1,2)", "dataset.root=choice(1,2)"),
        ("+logger.wandb.project=1_0", "+logger.wandb.project='1_0'"),
        ("experiment=2024_06_01", "experiment='2024_06_01'"),
        ("logger=[wandb,mlflow]", "logger=[wandb,mlflow]"),
        ("~logger", "~logger"),
        ("optimizer.lr=1e-3", "optimizer.lr=1e-3"),
    ],
)
def test_a_text_is_taken_as_typed(monkeypatch: pytest.MonkeyPatch, word: str, meant: str):
    monkeypatch.setenv("HOME", "HOME")
    assert as_typed(word) == meant
    assert as_typed(meant) == meant


def test_texts_and_paths_in_a_composed_configuration(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("HOME", "/home/me")
    monkeypatch.setenv("AFFECTNET_ROOT", "~/affectnet")
    config = compose(["dataset=folder", "dataset.root=~/2024_06_01", "name=1e3", "output_dir=2024_06_01"])
    assert (config.dataset.root, config.dataset.name) == ("/home/me/2024_06_01", "2024_06_01")
    assert (config.name, config.output_dir) == ("1e3", "2024_06_01")
    assert compose(["dataset=affectnet"]).dataset.root == "/home/me/affectnet"
    # The recorded overrides can be composed again.
    again = compose(list(config.composition.overrides))
    assert resolve(again) == resolve(config)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("words", "hint"),
    [
        (
            ["trainer.gradient_clip_val=0.5"],
            "in trainer, but lightning.Trainer takes it: to add it, type +trainer.gradient_clip_val=0.5",
        ),
        (["trainer.gradient_clip=0.5"], "did you mean 'gradient_clip_val'?"),
        (["trainer.max_epoch=3"], "did you mean 'max_epochs'?"),
        (["optimizer.weight_decay=0.1"], "but torch.optim.Adam takes it: to add it, type +optimizer.weight_decay=0.1"),
        (["optimizer=sgd", "optimizer.moment=0.1"], "did you mean 'momentum'?"),
        (["augment=none", "augment.erase.probability=0.3"], "augment=low_resolution and augment=paper have it"),
        (["loss.gamma=2"], "loss=focal has it"),
        (["callbacks.x=1"], "to add it, type +callbacks.x=1"),
        (["nam=x"], "did you mean 'name'?"),
    ],
    ids=lambda value: value[-1] if isinstance(value, list) else "",
)
def test_a_key_that_does_not_exist_is_answered_with_what_to_type(words: list[str], hint: str):
    with pytest.raises(ConfigCompositionException) as error:
        compose(words)
    text = explain(error.value, overrides=words)
    assert hint in text
    key = words[-1].partition("=")[0]
    assert f"did you mean '{key.split('.')[1 if '.' in key else 0]}'" not in text
    assert ("to add it" in text) == (hint.partition("type ")[1] != "" or key.startswith("augment"))


def test_flatten():
    assert flatten({"a": {"b": 1, "c": {}}, "d": [1, 2]}) == {"a.b": 1, "d": [1, 2]}


def test_an_experiment_has_the_last_word_over_the_top_level(tmp_path: Path):
    assert compose(["experiment=demo"]).dataset.batch_size == 32


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


def test_an_error_is_one_line_and_its_traceback_is_shown_to_who_asks_for_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(sys, "argv", ["fer_voting.train", *TINY, "model.width=0", f"output_dir={tmp_path}"])
    before = os.environ.get("HYDRA_FULL_ERROR")
    with pytest.raises(SystemExit, match="must be at least 1"):
        train()
    assert os.environ.get("HYDRA_FULL_ERROR") == before
    monkeypatch.setenv("HYDRA_FULL_ERROR", "1")
    with pytest.raises(ValueError, match="must be at least 1"):
        train()


FAST_PRECISION = OmegaConf.create({"p": "${fast_precision:}"})


@pytest.mark.skipif(torch.cuda.is_available(), reason="the GPU decides")
def test_fast_precision_of_this_processor():
    computes_bfloat16 = torch.cpu.get_capabilities().get("avx512_bf16", False)
    assert FAST_PRECISION.p == ("bf16-mixed" if computes_bfloat16 else "32-true")


@pytest.mark.parametrize(("computed", "precision"), [(True, "bf16-mixed"), (False, "32-true")])
def test_fast_precision_does_not_count_what_a_gpu_emulates(
    monkeypatch: pytest.MonkeyPatch, computed: bool, precision: str
):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(
        torch.cuda, "is_bf16_supported", lambda including_emulation=True: computed or including_emulation
    )
    assert FAST_PRECISION.p == precision
    expected = "bf16-mixed" if computed else "16-mixed"
    assert compose(["trainer=fast"]).trainer.precision == expected


SWEEP_WHOSE_PRECISION_NAMES_THE_PROCESS = """
import os
from pathlib import Path
from omegaconf import OmegaConf
from fer_voting.config import command

def job(config):
    Path(config.output_dir, "job").write_text(f"{os.getpid()} {config.trainer.precision}")

if __name__ == "__main__":
    Path("submission").write_text(str(os.getpid()))
    OmegaConf.register_new_resolver("fast_precision", lambda: str(os.getpid()), replace=True)
    command(job)
"""


@pytest.mark.slow
def test_fast_precision_is_resolved_where_the_job_runs(tmp_path: Path):
    script = tmp_path / "submit.py"
    script.write_text(SWEEP_WHOSE_PRECISION_NAMES_THE_PROCESS)
    words = ["-m", "hydra/launcher=slurm_local", "experiment=demo", "seed=0", f"output_dir={tmp_path}"]
    subprocess.run(
        [sys.executable, str(script), *words], cwd=tmp_path, env={**os.environ, "PYTHONPATH": str(REPO)}, check=False
    )
    process, precision = (tmp_path / "job").read_text().split()
    submission = (tmp_path / "submission").read_text()
    assert submission not in (process, precision)
    assert precision == compose(["experiment=demo"]).trainer.precision  # the job's own answer, not the submission's


@pytest.mark.parametrize("word", ["split=m1,m2", "seed=range(1,3)", "voting=glob(*)"])
def test_several_values_without_m_are_answered_with_m(run_train, word: str):
    with pytest.raises(SystemExit, match="add -m") as error:
        run_train(word)
    assert str(error.value).startswith(f"error: {word} ")


def test_a_mistyped_key_is_answered_with_the_keys_of_the_command(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(sys, "argv", ["audit", f"output_dir={tmp_path}", "near_duplicate_bit=2"])
    with pytest.raises(SystemExit, match=r"'near_duplicate_bit'.*'near_duplicate_bits'"):
        command("fer_voting.audit:job", "audit")


def test_a_reader_that_has_seen_enough_of_the_help_ends_it_quietly():
    reader, writer = os.pipe()
    os.close(reader)
    with os.fdopen(writer, "wb") as closed:
        words = [sys.executable, "-m", "fer_voting.train", "--help"]
        ended = subprocess.run(words, stdout=closed, stderr=subprocess.PIPE, text=True, cwd=REPO, check=False)
    assert (ended.returncode, ended.stderr) == (1, "")


@pytest.mark.slow
@pytest.mark.parametrize(
    "words",
    [
        ["split=m3", "seed=3", "name=1e3", "output_dir=/a b", "augment.erase.aspect=[1,2]", "+optimizer.amsgrad=true"],
        [
            "loss=focal",
            "dataset=folder",
            "dataset.root=~/a",
            "trainer.max_epochs=${seed}",
            "~callbacks.throughput",
            "optimizer.lr=1",
        ],
        [
            "++trainer.plugins={_target_: x.Y, z: [1]}",
            "dataset.balance=null",
            "logger=[wandb,offline]",
            "init_from='a,b'",
        ],
    ],
)
def test_the_configurations_of_other_tests_are_hydras(words: list[str]) -> None:
    ours = composed(words)
    assert OmegaConf.to_yaml(ours) == OmegaConf.to_yaml(compose(words))
    ours.seed = 99
    assert composed(words).seed != 99
    with pytest.raises(ConfigCompositionException, match=r"Could not override 'optimizer\.rate'"):
        composed([*words, "optimizer.rate=1"])
    with pytest.raises(ConfigCompositionException, match="Could not append"):
        composed([*words, "+optimizer.lr=1"])
    with pytest.raises(ConfigCompositionException, match="Error merging override seed=one"):
        composed([*words, "seed=one"])
    assert composed([*words, "refit=1"]).refit is True
