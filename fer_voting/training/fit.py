"""One training: data -> network -> callbacks -> trainer -> metrics of every vote."""

import functools
import hashlib
import logging
import os
import time
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import Any

import lightning as L
import torch
from hydra.utils import instantiate
from lightning.pytorch.callbacks import Callback

from fer_voting.data.module import FERDataModule, make_datamodule
from fer_voting.data.sampling import images_per_rank
from fer_voting.models.checkpoint import NetworkInfo, read_checkpoint
from fer_voting.models.compiled import compile_network
from fer_voting.models.cost import count_gmacs, count_parameters, count_torch_gmacs
from fer_voting.models.lean import LEAN_AND_SYNC_BATCHNORM
from fer_voting.models.registry import build_network, options_of
from fer_voting.models.voting import VotingNetwork
from fer_voting.runs.identity import batchnorm_ranks
from fer_voting.runs.processes import is_first_rank, other_ranks
from fer_voting.runs.run import Run, read_history
from fer_voting.system.environment import describe_device
from fer_voting.training.callbacks import Checkpoints, ForwardMemory, Guard, History, LastBias, RunProgress, Throughput
from fer_voting.training.estimate import announce_duration
from fer_voting.training.evaluation import evaluate_votes
from fer_voting.training.initialise import initialise
from fer_voting.training.losses import Distillation
from fer_voting.training.mix import Mix
from fer_voting.training.module import VotingModule
from fer_voting.training.trained import load_module
from fer_voting.votes import VOTES, Vote

log = logging.getLogger(__name__)

Result = dict[str, Any]

PURPOSES = {"init_from": "weights", "teacher": "teacher"}
"""Key that names a run -> what the run is needed for, in the plan (`runs.plan.plan_job`)."""


def open_data(config: dict[str, Any]) -> FERDataModule:
    """The data module of a resolved configuration, packed and divided."""
    data = make_datamodule(config["dataset"], refit=config["refit"])
    data.setup()
    return data


def read_inputs(config: dict[str, Any], data: FERDataModule) -> dict[str, Any]:
    """What a run reads besides its configuration, as plain values: part of what the run is (`Run.claim_inputs`).

    `data` (FERDataModule.data_summary), `initial_weights` (SHA-256 of the file, or null), with a teacher `teacher`
    (likewise), and of a refit the number of `epochs` that its selection run found best.
    """
    inputs: dict[str, Any] = {"data": data.data_summary(), "initial_weights": None}
    if (weights := _checkpoint(config, "init_from")) is not None:
        inputs["initial_weights"] = {"sha256": _sha256(weights)}
    if (teacher := _checkpoint(config, "teacher")) is not None:
        inputs["teacher"] = {"sha256": _sha256(teacher)}
    if config["refit"]:
        inputs["epochs"] = _epochs(config)
    return inputs


def fit(run: Run, config: dict[str, Any], result: Result, train: Callable[[Result], Result]) -> None:
    """Train the run's network and evaluate every vote; writes metrics, checkpoints and predictions into its folder.

    Args:
        result: gets `progress` when the training begins, and at its end the metrics and costs instead.
        train: what each other rank of this node calls with `config` (`runs.processes.other_ranks`).
    """
    vote: Vote = instantiate(config["voting"])
    if config["refit"] and vote.needs:
        raise ValueError(
            f"a refit trains on the validation images that the {vote.name} vote would be fitted on: "
            f"choose another for refit=true, e.g. voting={vote.epoch_vote}"
        )
    if config["model"].get("memory") == "lean" and config["trainer"].get("sync_batchnorm"):
        raise ValueError(LEAN_AND_SYNC_BATCHNORM)
    callbacks: list[Callback] = [instantiate(node) for node in config["callbacks"].values()]
    if config["init_from"] is None and any(isinstance(callback, LastBias) for callback in callbacks):
        raise ValueError(
            "callbacks=last_bias trains the last layer's bias alone, so with `init_from` (=None) every other weight "
            "would stay random: set init_from to a finished run or a .ckpt file"
        )
    _checkpoint(config, "teacher")  # one that is missing fails before the data, which may take minutes, …
    # … and so does an unknown accelerator, precision or tracker.
    trainer = _make_trainer(run, config, callbacks, vote)
    tracker = instantiate(config["logger"])
    _check_sizes(config, trainer.world_size)
    data = open_data(config)
    if is_first_rank():
        run.claim_inputs(read_inputs(config, data))
    module = _make_module(config, data, vote)
    checkpoint = run.last_checkpoint if run.last_checkpoint.exists() else None
    if checkpoint:
        read_checkpoint(checkpoint)  # refuses what holds anything but tensors and plain values, in one line
        log.info(f"{run.name}: continues from {checkpoint}")
    elif is_first_rank():
        announce_duration(module, data, trainer)
    if config["compile"]:
        compile_network(module.net)
    result["progress"] = {
        "epochs": trainer.max_epochs,
        "epochs_before": len(read_history(run.metrics_file)) if checkpoint else 0,
        "images_per_epoch": data.train_size,
        "since_unix_seconds": time.time(),
    }

    def fail(error: str) -> None:
        run.write_result(result | {"status": "failed", "error": error})

    if is_first_rank():
        run.write_result(result)
    with tracker.track(run, config) as trainer.loggers:
        with other_ranks(trainer, train, config, fail):
            try:
                trainer.fit(module, datamodule=data, ckpt_path=checkpoint, weights_only=True)
            except SystemExit as error:  # Lightning's answer to Ctrl-C
                raise KeyboardInterrupt from error
            device = describe_device(trainer.strategy.root_device)  # afterwards Lightning moves the module to the CPU
            votes = evaluate_votes(run, config, module, data)
        if is_first_rank():
            del result["progress"]
            result |= {
                "synthetic": data.synthetic,
                "class_names": list(data.class_names),
                "counts": data.counts(),
                "data": data.data_summary(),
                "data_fingerprint": data.fingerprint,
                "epochs": trainer.max_epochs,
                "votes": votes,
                **_measured(callbacks),
                "parameters": count_parameters(module.net),
                "gmacs": count_gmacs(module.net, module.info.image_size),
                "torch_gmacs": count_torch_gmacs(module.net, module.info.image_size),
                "precision": str(trainer.precision),
                "tf32": config["tf32"],
                "ranks": trainer.world_size,
                "device": device,
            }
            tracker.summarise(run, config, result, data)


def fit_on_other_rank(run: Run, config: dict[str, Any], train: Callable[[Result], Result]) -> Result:
    """The same training on a rank above 0; only rank 0 writes files, but for errors."""
    logging.getLogger("fer_voting").setLevel(logging.WARNING)
    if run.status() != "finished":
        try:
            fit(run, config, {}, train)
        except Exception:
            (run.dir / f"error-process{os.getpid()}.txt").write_text(traceback.format_exc())
            raise
    return {"status": "finished"}


def _selecting(vote: Vote) -> dict[str, Vote]:
    """The votes that select epochs: the built-in ones, and the configured one unless it is fitted."""
    return {**VOTES} if vote.needs else {**VOTES, vote.name: vote}


def _make_trainer(run: Run, config: dict[str, Any], callbacks: list[Callback], vote: Vote) -> L.Trainer:
    # Deterministic algorithms also fill every new tensor, against code that reads uninitialised memory: 3 % of a step.
    torch.utils.deterministic.fill_uninitialized_memory = False  # type: ignore[attr-defined]
    torch.set_float32_matmul_precision("high" if config["tf32"] else "highest")
    torch.backends.cudnn.allow_tf32 = config["tf32"]
    refit_vote = vote.name if config["refit"] else None
    history = History(run.metrics_file)
    trainer: L.Trainer = instantiate(
        {
            **config["trainer"],
            "max_epochs": _epochs(config),
            **({"limit_val_batches": 0} if config["refit"] else {}),
        },
        callbacks=[
            *callbacks,
            Guard(run),
            history,
            RunProgress(run.name, vote.epoch_vote),
            Checkpoints(run, history, refit_vote, _selecting(vote)),
        ],
        logger=False,
        enable_model_summary=False,
        num_sanity_val_steps=0,
        use_distributed_sampler=False,  # the data module deals out each rank's share itself
    )
    if not config["trainer"].get("sync_batchnorm") and trainer.world_size != batchnorm_ranks(config):
        raise ValueError(
            f"this training has {trainer.world_size} ranks, and trainer.devices={config['trainer']['devices']} "
            f"trainer.num_nodes={config['trainer'].get('num_nodes', 1)} say {batchnorm_ranks(config)}: "
            "set both to what the launcher starts"
        )
    every, epochs = trainer.check_val_every_n_epoch, trainer.max_epochs
    if not config["refit"] and (trainer.limit_val_batches == 0 or (every or 1) > (epochs or 0)):
        raise ValueError(
            f"trainer.check_val_every_n_epoch (={every}) must be at most trainer.max_epochs (={epochs}), and "
            f"trainer.limit_val_batches (={trainer.limit_val_batches}) above 0: validation chooses the best epoch"
        )
    return trainer


def _check_sizes(config: dict[str, Any], world_size: int) -> None:
    """Raises ValueError for a batch that the ranks cannot share, or for images too small for the network."""
    images_per_rank(config["dataset"]["batch_size"], world_size)
    options_of(config["run"]["architecture"], config["model"])
    _build(config, 2)


def _build(config: dict[str, Any], num_classes: int) -> VotingNetwork:
    return build_network(config["model"], config["split"]["name"], num_classes, config["dataset"]["size"])


def _make_module(config: dict[str, Any], data: FERDataModule, vote: Vote) -> VotingModule:
    L.seed_everything(config["seed"], workers=True, verbose=False)
    net = _build(config, len(data.class_names))
    if (weights := _checkpoint(config, "init_from")) is not None:
        initialise(net, data.class_names, weights, config["init_missing_classes"])
    info = NetworkInfo(
        split=config["split"]["name"],
        options=options_of(config["run"]["architecture"], config["model"]),
        class_names=data.class_names,
        image_size=config["dataset"]["size"],
        dataset=config["dataset"]["name"],
        architecture=config["run"]["architecture"],
    )
    scheduler = functools.partial(
        instantiate(config["scheduler"]),
        epochs=config["trainer"]["max_epochs"],  # also of a refit, which stops earlier
        steps_per_epoch=data.steps_per_epoch,
    )
    mix = Mix(instantiate(config["mix"])(num_classes=len(data.class_names)), config["seed"]) if config["mix"] else None
    return VotingModule(
        net,
        instantiate(config["optimizer"]),
        info,
        scheduler,
        label_smoothing=config["label_smoothing"],
        mix=mix,
        distillation=_make_distillation(config, data),
        votes=_selecting(vote),
    )


def _make_distillation(config: dict[str, Any], data: FERDataModule) -> Distillation | None:
    """Raises ValueError if the teacher does not know one of the classes, or takes images of another size."""
    if (path := _checkpoint(config, "teacher")) is None:
        return None
    try:
        teacher, _ = load_module(path, data.class_names, data.name)
    except ValueError as error:
        raise ValueError(f"teacher={config['teacher']}: {error}") from error
    if teacher.info.image_size != data.size:
        raise ValueError(
            f"teacher={config['teacher']} was trained on images of {teacher.info.image_size} pixels, and "
            f"dataset.size={data.size}"
        )
    return Distillation(teacher, **config["distillation"])


def _measured(callbacks: list[Callback]) -> Result:
    memory = next((c for c in callbacks if isinstance(c, ForwardMemory)), None)
    throughput = next((c for c in callbacks if isinstance(c, Throughput)), None)
    return {
        "forward_mib_per_image": memory and memory.mib_per_image,
        "forward_memory_measure": memory and memory.measure,
        "images_per_second": throughput and throughput.images_per_second,
    }


def _epochs(config: dict[str, Any]) -> int:
    """The configured number; of a refit, the number that its selection run found best (section 3.3)."""
    if not config["refit"]:
        return config["trainer"]["max_epochs"]
    votes = _needed_run(config, "selection")["votes"]
    return votes[config["voting"]["name"]]["best_epoch"] + 1


def _checkpoint(config: dict[str, Any], key: str) -> Path | None:
    """The checkpoint that `key` (`init_from` or `teacher`) names: a file, or a finished run's best by the paper's vote,
    the soft one. None if it names nothing."""
    source = config[key]
    if source is None:
        return None
    if source.endswith(".ckpt"):
        if not Path(source).is_file():
            raise FileNotFoundError(f"{key}={source} is not a file")
        return Path(source)
    run = Run(Path(config["output_dir"]), source)
    if (purpose := PURPOSES[key]) in config["run"]["needs"]:
        _needed_run(config, purpose, f" (or name another: {key}=...)")
    elif (status := run.status()) != "finished":
        raise FileNotFoundError(f"{key}={source}: the run in {run.dir} is {status}, not finished")
    return run.best_checkpoint("soft")


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _needed_run(config: dict[str, Any], purpose: str, hint: str = "") -> Result:
    """The result of the run that this one needs for `purpose`, which must be finished."""
    need = config["run"]["needs"][purpose]
    run = Run(Path(config["output_dir"]), need["run"])
    if (status := run.status()) != "finished":
        raise FileNotFoundError(
            f"the run {run.name} is needed first, and is {status} in {run.dir}; train it by: {need['command']}{hint}"
        )
    result = run.result()
    assert result is not None
    return result
