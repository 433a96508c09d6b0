"""One run, from its configuration to result.json. Read this first: docs/road.md draws what happens here.

The configuration becomes objects here, once; they travel, and it does not.
"""

import hashlib
import inspect
import logging
import time
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from datetime import datetime
from functools import cached_property
from pathlib import Path
from typing import Any

import lightning as L
import torch
from hydra.errors import InstantiationException
from hydra.utils import instantiate
from lightning.pytorch.callbacks import Callback, EarlyStopping, LambdaCallback, ProgressBar, Timer
from omegaconf import DictConfig
from torch import nn

from fer_voting.config import explain, make
from fer_voting.data.module import FERDataModule
from fer_voting.data.sampling import images_per_rank
from fer_voting.face_input import FaceInput
from fer_voting.models.checkpoint import NetworkInfo, read_checkpoint
from fer_voting.models.compiled import compile_network
from fer_voting.models.cost import count_gmacs, count_parameters, count_torch_gmacs
from fer_voting.models.images import Grey
from fer_voting.models.lean import LEAN_AND_SYNC_BATCHNORM
from fer_voting.models.registry import build_network, digest_of_fetched, options_of
from fer_voting.models.voting import VotingNetwork
from fer_voting.networks import Source, copy_weights, find, match_classes
from fer_voting.results.plots import plot_run
from fer_voting.runs.identity import PURPOSES, batchnorm_ranks, compared_data, resolve
from fer_voting.runs.lineage import Lineage, overlap_lines
from fer_voting.runs.naming import needed_config, row_of, settle, training_command
from fer_voting.runs.run import Recording, Run, read_history
from fer_voting.system.environment import describe_device, git_commit, keep_freed_memory, package_versions
from fer_voting.system.machine import thread_choices
from fer_voting.system.messages import set_up_messages
from fer_voting.system.ranks import is_first_rank
from fer_voting.system.text import counted
from fer_voting.targets import Target
from fer_voting.training.callbacks import (
    BestPerVote,
    ForwardMemory,
    MetricsCSV,
    RunProgressBar,
    StopOnNaN,
    Throughput,
    TrainLastBiasOnly,
)
from fer_voting.training.estimate import announce_duration, images_of_epoch
from fer_voting.training.evaluation import evaluate_votes
from fer_voting.training.loggers import EXTRAS, Start, log_best, log_hyperparameters, require, running_loggers
from fer_voting.training.losses import Distillation, check_loss
from fer_voting.training.mix import Mix
from fer_voting.training.module import VotingModule, evaluation_module
from fer_voting.training.options import refuse_callbacks, refuse_trainer, refuse_trainer_options
from fer_voting.training.schedules import depends_on_length
from fer_voting.votes import ALL_VOTES, VOTES, Vote

log = logging.getLogger(__name__)

RESULT_FORMAT = 3


def train(config: DictConfig) -> dict[str, Any]:
    """Train the run that a composed configuration describes; returns the content of its result.json.

    A finished run's result is returned as it is, an interrupted run continues from its last checkpoint, a failed one
    is tried again.

    Args:
        config: of `fer_voting.compose`, or as a command of Hydra gets it.

    Raises ValueError if the folder holds a run of another configuration, OtherInputsError (a ValueError) if it holds
    one on other data or from other weights, FileNotFoundError if a run that this one needs is not finished,
    RunInUseError if another process trains it. A process trains only once on several devices, and nothing after that.
    """
    if torch.distributed.is_available() and torch.distributed.is_initialized():
        raise RuntimeError(
            "this process has trained on several devices, after which it can't train again: start another"
        )
    set_up_messages()
    keep_freed_memory()
    if not is_first_rank():
        logging.getLogger("fer_voting").setLevel(logging.WARNING)  # what rank 0 says is enough
    config = with_rows_of_sources(settle(config))
    run = Run(Path(config.output_dir), config.name)
    with run.open(resolve(config)):
        if (finished := run.finished_result()) is not None:
            data = make_data(config)
            data.setup()
            sources = find_sources(config)
            sources.check_data(data)
            run.check_inputs(sources.inputs | {"data": data.data_summary()})
            log.info(f"{run.name}: finished before, not trained again ({run.dir})")
            return finished
        if config.continue_from:
            train_longer(config, run)
        threads = run.recorded_threads() or thread_choices(config.threads)
        torch.set_num_threads(threads[0])
        with run.recording(about(config) | {"threads": threads[0]}) as recording:
            # Mistakes are found before the data are read, which may take minutes.
            sources, data = find_sources(config), make_data(config)
            callbacks, loggers = make_callbacks(config), make_loggers(config)
            vote: Vote = instantiate(config.voting)
            trainer = make_trainer(config, run, callbacks, vote, data.target, sources)
            check(config, vote, trainer, data.target)
            data.setup()
            sources.check_data(data)
            run.check_inputs(sources.inputs | {"data": data.data_summary()})
            recording.values["inherited"] = keep_lineage(run, sources, data)
            module = make_module(config, data, vote, sources)
            with running_loggers(loggers) as trainer.loggers:
                log_hyperparameters(trainer.loggers, resolve(config))
                fit(trainer, module, data, run, recording, config.compile, threads)
                evaluator = make_evaluator(config.trainer)
                votes = evaluate_votes(evaluator, module, data, run, votes_of(vote, config.refit), config.refit)
                recording.complete(measured(trainer, module, data, run) | {"votes": votes, "tf32": config.tf32})
                log_best(trainer.loggers, run, resolve(config), recording.values, data)
            if config.plots and is_first_rank():
                plot_run(run, recording.values)
    return recording.values


# Sources of a run ------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Sources:
    """The parts of other runs that a run needs.

    Attributes:
        weights: the network whose weights are the initial ones; None: random ones.
        teacher: the teacher, if there is one.
        epochs: how many a refit trains: those that its selection run found best (section 3.3). None: no refit.
        runs: those that were not named but found, by purpose: `selection`, `weights`, `teacher`. Their configurations
            are those that this run needs.
        fetched: digest of the initial weights that `model.pretrained=true` fetched.
    """

    weights: Source | None
    teacher: Source | None
    epochs: int | None
    runs: Mapping[str, Run]
    fetched: str | None = None

    @cached_property
    def networks(self) -> dict[str, Any]:
        """Digests that identify the networks, as plain values."""
        weights = _sha256(self.weights) if self.weights else self.fetched
        networks: dict[str, Any] = {"initial_weights": weights and {"sha256": weights}}
        return networks if self.teacher is None else networks | {"teacher": {"sha256": _sha256(self.teacher)}}

    @property
    def inputs(self) -> dict[str, Any]:
        """Digests and numbers that identify the sources (`Run.check_inputs`), as plain values."""
        return self.networks if self.epochs is None else self.networks | {"epochs": self.epochs}

    def check_data(self, data: FERDataModule) -> None:
        """Raises ValueError unless the selection run and the teacher were trained on the data that this run reads.

        The selection run must also have begun with the same weights and learned from the same teacher. The run that
        gives the initial weights is one of another data set.
        """
        for purpose in self.runs.keys() & {"selection", "teacher"}:
            run, expected = self.runs[purpose], {"data": data.selection_summary()}
            if purpose == "selection":
                expected |= self.networks
            if different := run.other_inputs(expected):
                raise ValueError(
                    f"{run.dir} is not the {purpose} that is needed: it has other inputs ({different}); remove it and "
                    "train it again, or choose another output_dir"
                )


def find_sources(config: DictConfig) -> Sources:
    """The sources of a settled configuration. Raises FileNotFoundError if one is not there or not finished."""
    runs = {purpose: _needed_run(config, purpose) for purpose in config.composition.needs}
    epochs = None
    if selection := runs.get("selection"):
        votes = selection.finished_result()["votes"]  # type: ignore[index]
        if config.voting.name not in votes:
            raise ValueError(f"the run {selection.name} was not evaluated with the {config.voting.name} vote")
        epochs = votes[config.voting.name]["best_epoch"] + 1
    weights = _network(config, "init_from", runs.get("weights"))
    fetched = None
    if weights is None and config.model.get("pretrained"):
        fetched = digest_of_fetched(resolve(config)["model"], config.split.name, config.dataset.size)
    return Sources(weights, _network(config, "teacher", runs.get("teacher")), epochs, runs, fetched)


def with_rows_of_sources(config: DictConfig) -> DictConfig:
    """A settled configuration with `composition.sources`: of the runs that `init_from` and `teacher` name, the row and
    the data. Runs from sources that differ only in the seed are then runs of one recipe, whatever the names.
    """
    sources = {}
    for key, purpose in PURPOSES.items():
        with suppress(OSError, ValueError, KeyError):  # `find_sources` says what is wrong
            if purpose not in config.composition.needs and (source := _network(config, key, None)) and source.run:
                data = compared_data(source.run.finished_result() or {})
                sources[key] = f"{source.run.config()['composition']['row']}, data {data[:6]}"
    if not sources:
        return config
    config.composition.sources = sources
    config.composition.row = row_of(resolve(config))
    return config


def _network(config: DictConfig, key: str, needed: Run | None) -> Source | None:
    """The trained network that `key` names; of a run, by the soft vote's best epoch."""
    if needed is not None:
        return find(needed.dir)
    if config[key] is None:
        return None
    try:
        source = find(config[key], config.output_dir)
        source.weights_file()  # refuses an ONNX file
    except (FileNotFoundError, ValueError) as error:
        raise type(error)(f"{key}={config[key]}: {error}") from error
    return source


def _needed_run(config: DictConfig, purpose: str) -> Run:
    """The run that this one needs for a purpose, finished and of the expected configuration."""
    need = config.composition.needs[purpose]
    run = Run(Path(config.output_dir), need.run)
    key = next((key for key, of in PURPOSES.items() if of == purpose), purpose)
    command = training_command(need.overrides, config.selection if purpose == "selection" else None)
    train_it = f"train it by: {command} (or name another: {key}=...)"
    if (status := run.status()) != "finished":
        raise FileNotFoundError(f"the run {run.name} is needed first, and is {status} in {run.dir}; {train_it}")
    if different := run.other_values(needed_config(need)):
        raise ValueError(
            f"{run.dir} is not the {purpose} that is needed: it has another configuration ({different}); remove it and "
            f"{train_it}"
        )
    return run


def _sha256(source: Source) -> str:
    with source.weights_file().open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def keep_lineage(run: Run, sources: Sources, data: FERDataModule) -> dict[str, Any]:
    """Keep which images the run's network comes from, in its folder; the evaluated ones that a source has trained on.

    Returns `Lineage.overlap` of the sources, and warns if there is one.
    """
    networks = [source for source in (sources.weights, sources.teacher) if source is not None]
    inherited = Lineage.joined(Lineage.of_network(source.run, source.path.name) for source in networks)
    overlap = inherited.overlap({part: data.hashes(part) for part in data.counts() if part != "train"})
    if is_first_rank():
        inherited.keep(run, data.hashes("train"))
    for line in overlap_lines(overlap):
        log.warning(f"{run.name}: {line}, from which this run starts or learns")
    return overlap


def about(config: DictConfig) -> dict[str, Any]:
    """The part of result.json that is known before the training."""
    return {
        "format": RESULT_FORMAT,
        "name": config.name,
        "variant": config.composition.variant,
        **{group: config[group].name for group in ("dataset", "split")},
        **{key: config[key] for key in ("seed", "refit", "sweep")},
        "started": datetime.now().astimezone().isoformat(timespec="seconds"),
        "versions": package_versions(),
        "git_commit": git_commit(),
    }


def train_longer(config: DictConfig, run: Run) -> None:
    """Give `run` the files of the finished run that `continue_from` names, as if it had been killed there, unless it
    has begun already. It then ends as `trainer.max_epochs` epochs from the start would have ended.

    Raises FileNotFoundError if that is no finished run with its last checkpoint, ValueError if the two runs differ in
    more than trainer.max_epochs, or if as many epochs from the start would give other weights.
    """
    if run.last_checkpoint.exists():
        return
    folder = Path(config.continue_from)
    source = Run(Path(config.output_dir), folder.name)
    if (folder / "config.yaml").is_file():
        source.dir = folder.absolute()
    result = source.finished_result()
    if result is None or not source.last_checkpoint.exists():
        lacks = f"is {source.status()}" if result is None else "has no checkpoints/last.ckpt, which was removed"
        raise FileNotFoundError(
            f"continue_from={config.continue_from}: the run in {source.dir} {lacks}: only a finished run with its last "
            "checkpoint trains on; leave continue_from out to train from the start"
        )
    if reason := _why_not_longer(config, source):
        raise ValueError(f"continue_from={config.continue_from}: {reason}")
    run.begin_from(source)


def _why_not_longer(config: DictConfig, source: Run) -> str | None:
    """Why more epochs of `source` would not be what as many epochs from the start are; None if they would be."""
    ours = resolve(config)
    epochs, epochs_before = ours["trainer"]["max_epochs"], source.config()["trainer"]["max_epochs"]
    ours["trainer"]["max_epochs"] = epochs_before
    if different := source.other_values(ours):
        return f"the two runs must be equal in all but trainer.max_epochs ({different})"
    if config.refit:
        return "a refit trains for as many epochs as its selection run found best"
    if epochs <= epochs_before:
        return f"trainer.max_epochs={epochs} must be above the {epochs_before} of that run"
    if config.scheduler and depends_on_length(instantiate(config.scheduler)):
        return (
            f"the learning rate of scheduler={config.composition.options.scheduler} depends on the length of the whole "
            f"training, so that one of {counted(epochs_before, 'epoch')} is not the beginning of one of {epochs}: "
            "train them from the start"
        )
    if "StochasticWeightAveraging" in str(ours["callbacks"]):
        return "StochasticWeightAveraging begins at a share of the whole training: train from the start"
    return None


# From the configuration to objects --------------------------------------------------------------------------------


def make_data(config: DictConfig) -> FERDataModule:
    """The data set, not yet read."""
    target = instantiate(config.target) if config.target else None
    return make(
        config.dataset,
        augment=config.augment,
        full_resolution_too=config.teacher is not None and config.distillation.full_resolution,
        seed=config.seed,
        refit=config.refit,
        target=target,
    )


def make_callbacks(config: DictConfig) -> list[Callback]:
    """The callbacks of the configuration; without early stopping in a refit, which trains the epochs selected."""
    made = {
        key: instantiate(node, _convert_="all") for key, node in (config.callbacks or {}).items() if node is not None
    }
    refuse_callbacks(made)
    callbacks = [each for each in made.values() if not (config.refit and isinstance(each, EarlyStopping))]
    if config.init_from is None and any(isinstance(callback, TrainLastBiasOnly) for callback in callbacks):
        raise ValueError(
            "callbacks=last_bias trains only the last layer's bias, so with `init_from` (=None) every other weight "
            "would stay random: set init_from to a finished run or a .ckpt file"
        )
    return callbacks


def make_loggers(config: DictConfig) -> list[Start]:
    """Functions that start the loggers: a mistake is found before the data are read; a logger's run begins
    only where a training begins.

    Raises ValueError if a node names what is not installed, or has a key that its logger does not know.
    """
    starts = []
    if config.trainer.get("fast_dev_run"):
        return []  # as Lightning leaves them out
    for name, node in (config.logger or {}).items():
        if node is None:
            continue
        require(f"logger={name}", name, *EXTRAS.get(name, ()))
        try:
            start = instantiate(node, _partial_=True, _convert_="all")
            inspect.signature(start).bind()
        except (InstantiationException, TypeError) as error:
            raise ValueError(f"logger.{name}: {explain(error)}") from error
        starts.append(start)
    return starts


def make_trainer(
    config: DictConfig, run: Run, callbacks: list[Callback], vote: Vote, target: Target, sources: Sources
) -> L.Trainer:
    """Lightning's trainer, with the callbacks of every training behind those of the configuration."""
    refuse_trainer_options(config.trainer)
    # Deterministic algorithms also fill every new tensor, against code that reads uninitialised memory: 3 % of a step.
    torch.utils.deterministic.fill_uninitialized_memory = False  # type: ignore[attr-defined]
    use_float32_precision(config.tf32)
    history = MetricsCSV(run.metrics_file)
    bar = []
    if config.trainer.get("enable_progress_bar", True) and not any(isinstance(c, ProgressBar) for c in callbacks):
        bar = [RunProgressBar(run.name, f"val/{vote.epoch_vote}/{target.best}")]
    votes = (
        [vote.name] if config.refit else [name for name, each in selecting_votes(vote).items() if target.takes(each)]
    )
    # Lightning's own defaults, where the configuration says nothing, and what is ours in any case.
    defaults = {"enable_model_summary": False, "num_sanity_val_steps": 0, "default_root_dir": str(run.dir)}
    always: dict[str, Any] = {"use_distributed_sampler": False}  # the data module deals out each rank's share itself
    if sources.epochs is not None:
        always |= {"max_epochs": sources.epochs, "limit_val_batches": 0}
    return instantiate(
        {**defaults, **config.trainer, **always},
        callbacks=[
            *callbacks,
            StopOnNaN(run),
            history,
            *bar,
            BestPerVote(run, history, votes, target.best, config.refit),
        ],
        logger=False,
        _convert_="all",  # plain containers, which Lightning's options expect
    )


def use_float32_precision(tf32: bool) -> None:
    """Compute float32 products of a GPU with 10 bits of mantissa (TensorFloat-32) or with all 23."""
    torch.set_float32_matmul_precision("high" if tf32 else "highest")
    torch.backends.cudnn.allow_tf32 = tf32


def make_evaluator(trainer_node: Mapping[str, Any]) -> L.Trainer:
    """A trainer that predicts, as a configuration's `trainer` node says."""
    return instantiate(
        {**trainer_node, "max_epochs": 1, "profiler": None},
        logger=False,
        enable_checkpointing=False,
        enable_model_summary=False,
        enable_progress_bar=False,
        use_distributed_sampler=False,  # the data module deals out each rank's share itself
        _convert_="all",
    )


def check(config: DictConfig, vote: Vote, trainer: L.Trainer, target: Target) -> None:
    """Raises ValueError for what cannot work, before the data are read."""
    options = config.composition.options
    check_loss(instantiate(config.loss), target, options.loss)
    if not target.takes(vote):
        raise ValueError(
            f"voting={vote.name} is not for target={options.target}: take soft, the mean of the crops' numbers, or "
            "hard, their median" + (", or a vote that needs no full map" if target.has_classes else "")
        )
    if target.numbers and config.teacher:
        raise ValueError(f"teacher={config.teacher} gives probabilities of classes: leave it out for numbers")
    if config.refit and vote.needs:
        raise ValueError(
            f"a refit trains on the validation images that the {vote.name} vote would be fitted on: "
            f"choose another for refit=true, e.g. voting={vote.epoch_vote}"
        )
    if config.model.get("memory") == "lean" and config.trainer.get("sync_batchnorm"):
        raise ValueError(LEAN_AND_SYNC_BATCHNORM)
    if trainer.world_size != batchnorm_ranks(resolve(config)):
        raise ValueError(
            f"this training has {counted(trainer.world_size, 'rank')}, and trainer.devices={config.trainer.devices} "
            f"trainer.num_nodes={config.trainer.get('num_nodes', 1)} say {batchnorm_ranks(resolve(config))}: "
            "set both to what the launcher starts"
        )
    refuse_trainer(trainer)
    every, epochs = trainer.check_val_every_n_epoch, trainer.max_epochs
    if epochs is None or epochs < 1:
        raise ValueError(f"trainer.max_epochs (={epochs}) must be at least 1; trainer.max_steps may end it earlier")
    if not config.refit and (trainer.limit_val_batches == 0 or not 1 <= (every or 0) <= epochs):
        raise ValueError(
            f"trainer.check_val_every_n_epoch (={every}) must be 1 to trainer.max_epochs (={epochs}), and "
            f"trainer.limit_val_batches (={trainer.limit_val_batches}) above 0: validation chooses the best epoch"
        )
    images_per_rank(config.dataset.batch_size, trainer.world_size)  # refuses a batch that the ranks cannot share
    options_of(options.model, resolve(config)["model"])
    make_network(config, 2)  # refuses images that are too small for it


def make_network(config: DictConfig, outputs: int) -> VotingNetwork:
    """The network, with random weights or those that timm gives it."""
    return build_network(resolve(config)["model"], config.split.name, outputs, config.dataset.size)


def make_module(config: DictConfig, data: FERDataModule, vote: Vote, sources: Sources) -> VotingModule:
    """The LightningModule: network, loss, optimizer, schedule, and what changes batches and targets."""
    L.seed_everything(config.seed, workers=True, verbose=False)
    class_names = data.class_names if data.target.has_classes else ()
    outputs = (*class_names, *data.target.numbers)
    net = make_network(config, len(outputs))
    if sources.weights is not None:
        copy_weights(sources.weights.load_network(), net, outputs, config.init_missing_classes)
    architecture = config.composition.options.model
    info = NetworkInfo(
        split=config.split.name,
        options=options_of(architecture, resolve(config)["model"]),
        class_names=class_names,
        number_names=data.target.numbers,
        image_size=config.dataset.size,
        dataset=config.dataset.name,
        architecture=architecture,
        faces=FaceInput(colour="grey" if data.pack.is_grey else "rgb"),
    )
    mix = Mix(instantiate(config.mix)(num_classes=len(outputs)), config.seed) if config.mix else None
    return VotingModule(
        net,
        instantiate(config.loss),
        instantiate(config.optimizer),
        info,
        instantiate(config.scheduler),
        mix=mix,
        distillation=make_distillation(config, data, sources.teacher),
        votes=selecting_votes(vote),
        target=data.target,
        schedule_epochs=config.trainer.max_epochs if config.refit else None,  # a refit stops earlier
        seed=config.seed,
    )


def make_distillation(config: DictConfig, data: FERDataModule, source: Source | None) -> Distillation | None:
    """The teacher as a part of the loss, or None. One that was trained on grey images sees grey, as in an evaluation.

    Raises ValueError if it does not know one of the classes, predicts numbers, or takes images of another size.
    """
    if source is None:
        return None
    try:
        teacher, _ = match_classes(source.load_network(), data.class_names, data.name)
    except ValueError as error:
        raise ValueError(f"teacher={config.teacher}: {error}") from error
    if teacher.info.image_size != data.size:
        raise ValueError(
            f"teacher={config.teacher} was trained on images of {teacher.info.image_size} pixels, and "
            f"dataset.size={data.size}"
        )
    if teacher.info.number_names:
        raise ValueError(
            f"teacher={config.teacher} predicts {' and '.join(teacher.info.number_names)}: take one of classes"
        )
    net: nn.Module = evaluation_module(teacher)
    if teacher.info.faces.colour == "grey" and not data.pack.is_grey:
        net = nn.Sequential(Grey(), net)
    settings = {key: value for key, value in config.distillation.items() if key != "full_resolution"}  # of the data
    return Distillation(net, **settings)


def selecting_votes(vote: Vote) -> dict[str, Vote]:
    """The votes that select epochs, by name: the built-in ones, and the configured one if it does."""
    return {**VOTES, vote.name: vote} if vote.epoch_vote == vote.name else {**VOTES}


def votes_of(vote: Vote, refit: bool) -> dict[str, Vote]:
    """The votes that are evaluated, by name: the built-in ones and the configured one.

    A refit is evaluated only with the vote that chose its number of epochs.
    """
    return {vote.name: vote} if refit else {**ALL_VOTES, vote.name: vote}


# Training ---------------------------------------------------------------------------------------------------------


def fit(
    trainer: L.Trainer,
    module: VotingModule,
    data: FERDataModule,
    run: Run,
    recording: Recording,
    compiled: bool,
    threads: Sequence[int],
) -> None:
    """Train, from the run's last checkpoint where it has one; on a processor with one of these numbers of threads."""
    checkpoint = run.last_checkpoint if run.last_checkpoint.exists() else None
    if checkpoint:
        # Refuses what holds anything but tensors and plain values, in one line.
        data.first_epoch = read_checkpoint(checkpoint)["epoch"] + 1
        log.info(f"{run.name}: continues from {checkpoint}")
    elif is_first_rank():
        announce_duration(run.name, module, data, trainer, threads)
    if compiled:
        compile_network(module.net)
    recording.values["threads"] = torch.get_num_threads()  # which a start that continues this run takes
    recording.begin(
        {
            "epochs": trainer.max_epochs,
            "epochs_before": len(read_history(run.metrics_file)) if checkpoint else 0,
            "images_per_epoch": images_of_epoch(data.train_size, data.batch_size, trainer.limit_train_batches),
            "since_unix_seconds": time.time(),
        }
    )
    # A kill then costs the seconds of one epoch, which is trained again.
    trainer.callbacks.append(LambdaCallback(on_train_epoch_end=lambda *_: recording.write()))  # type: ignore[attr-defined]
    try:
        trainer.fit(module, datamodule=data, ckpt_path=checkpoint, weights_only=True)
    except SystemExit as error:  # Lightning's answer to Ctrl-C
        raise KeyboardInterrupt from error
    epochs = len(read_history(run.metrics_file))
    if epochs < (trainer.max_epochs or 0) or not trainer.is_last_batch:
        log.info(
            f"{run.name}: {ended_by(trainer)} ended the training in epoch {epochs} of {trainer.max_epochs}, "
            f"after {counted(trainer.global_step, 'step')}"
        )


def ended_by(trainer: L.Trainer) -> str:
    """The option or callback that ended a training before its last epoch."""
    if 0 < trainer.max_steps <= trainer.global_step:
        return f"trainer.max_steps={trainer.max_steps}"
    for callback in trainer.callbacks:  # type: ignore[attr-defined]
        if isinstance(callback, EarlyStopping) and (callback.stopped_epoch or callback.wait_count >= callback.patience):
            return f"{type(callback).__name__} of {callback.monitor}"
        if isinstance(callback, Timer) and (callback.time_remaining() or 0) <= 0:
            return f"trainer.max_time ({callback.time_elapsed():.0f} s are over)"
    return "a callback"


def measured(trainer: L.Trainer, module: VotingModule, data: FERDataModule, run: Run) -> dict[str, Any]:
    """The part of result.json that is known after the training, besides the metrics of the votes."""
    callbacks: list[Callback] = trainer.callbacks  # type: ignore[attr-defined]
    memory = next((c for c in callbacks if isinstance(c, ForwardMemory)), None)
    throughput = next((c for c in callbacks if isinstance(c, Throughput)), None)
    return {
        "synthetic": data.synthetic,
        "class_names": list(module.info.class_names),
        "number_names": list(module.info.number_names),
        "best_metric": data.target.best,
        "counts": data.counts(),
        "data": data.data_summary(),
        "data_fingerprint": data.fingerprint,
        "epochs": len(read_history(run.metrics_file)),  # of a training that is stopped early, fewer than max_epochs
        "forward_mib_per_image": memory and memory.mib_per_image,
        "images_per_second": throughput and throughput.images_per_second,
        "parameters": count_parameters(module.net),
        "gmacs": count_gmacs(module.net, module.info.image_size),
        "torch_gmacs": count_torch_gmacs(module.net, module.info.image_size),
        "precision": str(trainer.precision),
        "ranks": trainer.world_size,
        "device": describe_device(trainer.strategy.root_device),
    }
