"""Train a network, or a sweep of them: `python -m fer_voting.train [-m] [group=option] [key=value] ...`.

This file only wires what the configuration names: data, network, callbacks, loggers, trainer. The science is in
`module`, `models`, `voting` and `data`.
"""

import logging
import os
import time
import traceback
from collections.abc import Callable
from contextlib import suppress
from datetime import datetime
from pathlib import Path
from typing import Any

import lightning as L
import numpy as np
import torch
from hydra.core.hydra_config import HydraConfig
from hydra.types import RunMode
from hydra.utils import instantiate
from lightning.pytorch.callbacks import Callback, ModelCheckpoint
from omegaconf import DictConfig

from fer_voting.config import command, explain, name_choices
from fer_voting.data.module import FERDataModule, make_datamodule
from fer_voting.models.checkpoint import NetworkInfo, load_weights
from fer_voting.models.compiled import compile_network
from fer_voting.models.cost import count_gmacs, count_parameters
from fer_voting.models.resnet import LEAN_AND_SYNC_BATCHNORM
from fer_voting.results.plots import draw_confusion, draw_curves
from fer_voting.runs.plan import plan_job
from fer_voting.runs.processes import is_first_rank, other_ranks, run_isolated
from fer_voting.runs.run import Run, read_history
from fer_voting.system.environment import describe_device, git_commit, keep_freed_memory, package_versions
from fer_voting.system.messages import set_up_messages
from fer_voting.training.callbacks import ForwardMemory, History, RunProgress, Throughput
from fer_voting.training.estimate import announce_duration
from fer_voting.training.initialise import initialise
from fer_voting.training.module import Predictions, VotingModule
from fer_voting.votes import VOTES

__all__ = ["main", "train"]

log = logging.getLogger(__name__)

RESULT_FORMAT = 1


def train(config: dict[str, Any]) -> dict[str, Any]:
    """Train, select and test the run that a resolved configuration describes; returns its result.json.

    A finished run is returned as it is; an interrupted one goes on from its last checkpoint; a failed one is
    tried again.
    """
    set_up_messages()
    keep_freed_memory()
    run = Run(Path(config["output_dir"]), config["name"])
    if not is_first_rank():
        return _train_beside(run, config)
    with run.open(config):
        previous = run.result()
        if previous is not None and previous["status"] == "finished":
            log.info(f"{run.name}: finished before, not trained again ({run.dir})")
            return previous
        started = time.time()
        seconds_before = previous["seconds"] if previous and run.last_checkpoint.exists() else 0.0
        result: dict[str, Any] = {
            "format": RESULT_FORMAT,
            "name": run.name,
            "status": "running",
            "error": None,
            "dataset": config["dataset"]["name"],
            "split": config["split"]["name"],
            "seed": config["seed"],
            "refit": config["refit"],
            "sweep": config["sweep"],
            "started": datetime.now().astimezone().isoformat(timespec="seconds"),
            "seconds": seconds_before,
            "versions": package_versions(),
            "git_commit": git_commit(),
        }
        run.write_result(result)

        def note(**figures: Any) -> None:
            result.update(figures)
            run.write_result(result)

        try:
            result |= _fit_and_judge(run, config, note)
            result["status"] = "finished"
            del result["progress"]
        except Exception as error:
            (run.dir / "error.txt").write_text(traceback.format_exc())
            result |= {"status": "failed", "error": explain(error)}
            raise
        finally:
            # After Ctrl-C it stays `running`, which without a process behind it reads as interrupted.
            result["seconds"] = round(seconds_before + time.time() - started, 1)
            with suppress(OSError):  # a full disk, say, which is the error already under way
                run.write_result(result)
        run.last_checkpoint.unlink(missing_ok=True)
        return result


def _train_beside(run: Run, config: dict[str, Any]) -> dict[str, Any]:
    """What every rank but the first does: the same training, without the records, which are the first one's."""
    logging.getLogger("fer_voting").setLevel(logging.WARNING)
    if run.status() != "finished":
        try:
            _fit_and_judge(run, config, lambda **figures: None)
        except Exception:
            (run.dir / f"error-process{os.getpid()}.txt").write_text(traceback.format_exc())
            raise
    return {"status": "finished"}


def _fit_and_judge(run: Run, config: dict[str, Any], note: Callable[..., None]) -> dict[str, Any]:
    """The part of the result that the training makes; `note(key=value)` records what is worth knowing before."""
    vote = config["voting"]["name"]
    if vote not in VOTES:
        raise ValueError(f"`voting.name` (={vote!r}) must be one of {', '.join(VOTES)}")
    if config["model"].get("memory") == "lean" and config["trainer"].get("sync_batchnorm"):
        raise ValueError(LEAN_AND_SYNC_BATCHNORM)
    callbacks: list[Callback] = [
        *(instantiate(node) for node in config["callbacks"].values()),
        History(run.metrics_file),
        RunProgress(run.name, vote),
        *_checkpoints(run, config["refit"]),
    ]
    memory = next((c for c in callbacks if isinstance(c, ForwardMemory)), None)
    throughput = next((c for c in callbacks if isinstance(c, Throughput)), None)
    # First of all, for a wrong accelerator or precision, or a package that is not there, shows here.
    trainer = _make_trainer(config, callbacks, _epochs(config))
    logger = instantiate(config["logger"])
    # Deterministic algorithms also fill every new tensor, against code that reads what it never wrote: 3 % of a step.
    torch.utils.deterministic.fill_uninitialized_memory = False  # type: ignore[attr-defined]
    weights = _weights_to_start_from(config)

    datamodule = make_datamodule(config["dataset"], refit=config["refit"])
    datamodule.setup()

    L.seed_everything(config["seed"], workers=True, verbose=False)
    net = instantiate(config["model"], split=config["split"]["name"], num_classes=len(datamodule.class_names))
    if weights is not None:
        initialise(net, datamodule.class_names, weights, config["init_missing_classes"])
    record = NetworkInfo(
        split=config["split"]["name"],
        width=config["model"]["width"],
        class_names=datamodule.class_names,
        image_size=config["dataset"]["size"],
        dataset=config["dataset"]["name"],
    )
    module = VotingModule(
        net,
        instantiate(config["optimizer"]),
        config["dataset"]["schedule"]["lr_gamma_per_epoch"],
        record,
    )

    resume_from = run.last_checkpoint if run.last_checkpoint.exists() else None
    if resume_from:
        log.info(f"{run.name}: goes on from {resume_from}")
    elif is_first_rank():
        announce_duration(module, datamodule, trainer)
    if config["compile"]:
        compile_network(net)
    note(
        progress={
            "epochs": trainer.max_epochs,
            "epochs_before": len(read_history(run.metrics_file)) if resume_from else 0,
            "images_per_epoch": datamodule.train_size,
            "since_unix_seconds": time.time(),
        }
    )
    with logger.telling(run, config) as trainer.loggers:
        with other_ranks(trainer, train, config, lambda error: note(status="failed", error=error)):
            _fit(trainer, module, datamodule, resume_from)
            if config["refit"]:
                trainer.save_checkpoint(run.best_checkpoint(vote), weights_only=True)
            votes = _judge(run, config, module, datamodule)
        if not is_first_rank():
            return {}
        result = {
            "synthetic": datamodule.synthetic,
            "class_names": list(datamodule.class_names),
            "counts": datamodule.counts(),
            "data_fingerprint": datamodule.fingerprint,
            "epochs": trainer.max_epochs,
            "votes": votes,
            "forward_mib_per_image": memory and memory.mib_per_image,
            "forward_memory_measure": memory and memory.measure,
            "parameters": count_parameters(net),
            "gmacs": count_gmacs(net, record.image_size),
            "images_per_second": throughput and throughput.images_per_second,
            "precision": str(trainer.precision),
            "ranks": trainer.world_size,
            "device": describe_device(module.device if trainer.num_devices else torch.device("cpu")),
        }
        _draw(run, result)
        logger.summarise(run, config, result, datamodule)
    return result


def _make_trainer(config: dict[str, Any], callbacks: list[Callback], max_epochs: int) -> L.Trainer:
    return instantiate(
        {**config["trainer"], "max_epochs": max_epochs, **({"limit_val_batches": 0} if config["refit"] else {})},
        callbacks=callbacks,
        logger=False,
        enable_model_summary=False,
        enable_progress_bar=any(isinstance(callback, RunProgress) for callback in callbacks),
        enable_checkpointing=any(isinstance(callback, ModelCheckpoint) for callback in callbacks),
        num_sanity_val_steps=0,
        use_distributed_sampler=False,  # the data modules deal out each rank's part themselves
    )


def _checkpoints(run: Run, refit: bool) -> list[ModelCheckpoint]:
    """The last epoch, to go on from, and each vote's best."""
    folder = run.last_checkpoint.parent

    def keep(path: Path, **how: Any) -> ModelCheckpoint:
        return ModelCheckpoint(
            folder,
            path.stem,
            save_top_k=1,
            save_on_train_epoch_end=True,
            enable_version_counter=False,
            auto_insert_metric_name=False,
            **how,
        )

    # A refit validates nothing: its last epoch is saved as the vote's best when it ends.
    best = (
        []
        if refit
        else [
            keep(run.best_checkpoint(vote), monitor=f"val/{vote}/accuracy", mode="max", save_weights_only=True)
            for vote in VOTES
        ]
    )
    return [*best, keep(run.last_checkpoint)]


def _fit(trainer: L.Trainer, module: VotingModule, datamodule: FERDataModule, resume_from: Path | None) -> None:
    try:
        trainer.fit(module, datamodule=datamodule, ckpt_path=resume_from, weights_only=True)
    except SystemExit as error:  # what Lightning makes of Ctrl-C
        raise KeyboardInterrupt from error


def _judge(
    run: Run, config: dict[str, Any], module: VotingModule, datamodule: FERDataModule
) -> dict[str, dict[str, Any]]:
    """Each vote's figures on validation and test, from the weights of the vote's best epoch."""
    judge = _make_trainer(config, [], max_epochs=1)
    stages = [*([] if config["refit"] else ["val"]), *(["test"] if datamodule.has_test else [])]
    evaluated: dict[int, dict[str, Any]] = {}  # epoch -> stage -> vote -> figures
    votes: dict[str, dict[str, Any]] = {}
    for vote in [config["voting"]["name"]] if config["refit"] else VOTES:
        path = run.best_checkpoint(vote)
        epoch = torch.load(path, map_location="cpu", weights_only=True)["epoch"]
        if epoch not in evaluated:
            state, _ = load_weights(path)
            module.net.load_state_dict(state)
            evaluated[epoch] = {}
            for stage in stages:
                evaluate = judge.validate if stage == "val" else judge.test
                evaluate(module, datamodule=datamodule, verbose=False)
                predictions = module.predictions.gather(datamodule.positions(stage))
                evaluated[epoch][stage] = (module.evaluation, predictions)
        votes[vote] = {"best_epoch": epoch, "checkpoint": str(path.relative_to(run.dir))}
        for stage, (evaluation, predictions) in evaluated[epoch].items():
            votes[vote][stage] = evaluation[vote]
            if is_first_rank():
                names = datamodule.pack.names(predictions.index[0].numpy())
                _save_predictions(run.predictions_file(vote, stage), predictions, vote, names)
    return votes


def _save_predictions(path: Path, predictions: Predictions, vote: str, names: list[str]) -> None:
    """What the network said of each image: `logits` [N, V, K], the vote's `scores` [N, K], `labels`, `names`."""
    path.parent.mkdir(exist_ok=True)
    logits = torch.cat(predictions.logits)
    draft = path.with_name(f".{path.name}")
    with draft.open("wb") as file:
        np.savez_compressed(
            file,
            logits=logits.numpy(),
            scores=VOTES[vote](logits).numpy(),
            labels=torch.cat(predictions.labels).numpy(),
            names=np.array(names),
        )
    draft.replace(path)


def _epochs(config: dict[str, Any]) -> int:
    """As many as configured; a refit's, as many as its selection run found best (section 3.3)."""
    if not config["refit"]:
        return config["trainer"]["max_epochs"]
    votes = _needed_run(config, "selection")["votes"]
    return votes[config["voting"]["name"]]["best_epoch"] + 1


def _weights_to_start_from(config: dict[str, Any]) -> Path | None:
    """The checkpoint that `init_from` means: a file, or a finished run's best by the soft vote, the paper's."""
    source = config["init_from"]
    if source is None:
        return None
    if source.endswith(".ckpt"):
        return Path(source)
    if "weights" in config["needs"]:
        _needed_run(config, "weights")
    elif (run := Run(Path(config["output_dir"]), source)).status() != "finished":
        raise FileNotFoundError(f"init_from={source}: the run in {run.dir} is {run.status()}, not finished")
    return Run(Path(config["output_dir"]), source).best_checkpoint("soft")


def _needed_run(config: dict[str, Any], purpose: str) -> dict[str, Any]:
    """The result of the run that this one needs for `purpose`, which must be finished."""
    need = config["needs"][purpose]
    run = Run(Path(config["output_dir"]), need["run"])
    if (status := run.status()) != "finished":
        raise FileNotFoundError(
            f"the run {run.name} is needed first, and is {status} in {run.dir}; make it by: {need['command']}"
            f"{' (or name another: init_from=...)' if purpose == 'weights' else ''}"
        )
    result = run.result()
    assert result is not None
    return result


def _draw(run: Run, result: dict[str, Any]) -> None:
    note = " (synthetic faces)" if result["synthetic"] else ""
    draw_curves(run.dir / "curves.png", read_history(run.metrics_file), f"{run.name}{note}")
    for vote, figures in result["votes"].items():
        for stage in ("val", "test"):
            if stage in figures:
                title = f"{run.name}, {vote} vote, {stage}{note}"
                counts = np.array(figures[stage]["confusion_counts"])
                draw_confusion(run.dir / f"confusion-{vote}-{stage}.png", counts, result["class_names"], title)


def job(cfg: DictConfig) -> dict[str, Any]:
    """One run of the command line; in a sweep, in a process of its own."""
    hydra = HydraConfig.get()
    os.chdir(hydra.runtime.cwd)  # a launcher's worker may be elsewhere, and paths are relative to the command's folder
    config = plan_job(hydra.overrides.task, cfg, name_choices(hydra.runtime.choices))
    if hydra.mode is RunMode.MULTIRUN:
        outcome = run_isolated(train, config)
        if outcome["status"] == "failed" and int(os.environ.get("SLURM_NTASKS", "1")) > 1:
            raise ChildProcessError(outcome["error"])  # so that Slurm ends the other ranks, which wait for this one
        return outcome
    result = train(config)
    if is_first_rank():
        log.info("result: %s", Run(Path(config["output_dir"]), config["name"]).dir / "result.json")
    return result


def main() -> None:
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")  # it would tell its makers about each sweep
    command(job)


if __name__ == "__main__":
    # By its name, under which other processes find what they are to do.
    from fer_voting.train import main as importable_main

    importable_main()
