"""Who is told of a run: W&B, TensorBoard, MLflow, or nobody. Each is an option of conf/logger.

What is told under which name: the figures of every epoch as `module.VotingModule` and the callbacks log them, and when
the run is finished, its best figures as plain numbers (`best_figures`). metrics.csv depends on none of this.
"""

import fcntl
import importlib.util
import logging
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import torch
import wandb
from lightning.pytorch.loggers import Logger, MLFlowLogger, TensorBoardLogger, WandbLogger
from numpy.typing import NDArray

from fer_voting.config import explain, flatten
from fer_voting.data.module import FERDataModule
from fer_voting.runs.processes import is_first_rank
from fer_voting.runs.run import Run
from fer_voting.votes import softprob_vote

__all__ = ["MlflowRun", "RunLogger", "TensorBoardRun", "WandbRun", "best_figures", "require", "worst_errors"]

log = logging.getLogger(__name__)

STAGES = ("val", "test")
WORST_ERRORS = 32


def require(what: str, extra: str, *modules: str) -> None:
    """Raises ValueError with the command that installs the extra, if one of its modules is not there."""
    if missing := [module for module in modules if importlib.util.find_spec(module) is None]:
        raise ValueError(
            f"{what} needs {', '.join(missing)}, which is not installed: in the checkout, "
            f"pip install -c constraints.txt -e '.[{extra}]'"
        )


def best_figures(result: dict[str, Any]) -> dict[str, float]:
    """A finished run's figures as plain numbers, by name; what was not measured is left out.

    `best/<stage>/<vote>/accuracy`, `.../mean_recall` and `.../recall/<class>` are of the vote's best epoch,
    `best/<vote>/epoch`.
    """
    figures: dict[str, float] = {}
    for vote, judged in result["votes"].items():
        figures[f"best/{vote}/epoch"] = judged["best_epoch"]
        for stage in STAGES:
            if stage in judged:
                kept = {name: judged[stage][name] for name in ("accuracy", "mean_recall", "recall")}
                for key, value in flatten(kept).items():
                    figures[f"best/{stage}/{vote}/{key.replace('recall.', 'recall/', 1)}"] = value
    cost = ("forward_mib_per_image", "parameters", "gmacs", "images_per_second")
    return figures | {name: result[name] for name in cost if result[name] is not None}


def worst_errors(
    logits: NDArray[np.float32], scores: NDArray[np.float32], labels: NDArray[np.int64]
) -> Iterator[tuple[int, int, float]]:
    """The wrong decisions of the highest confidence: position, decision (class id), confidence; highest first.

    The confidence of a decision is the mean of the crops' softmax, whatever the vote, so that it compares.

    Args:
        logits: `[N, V, K]`.
        scores: the vote's, `[N, K]`.
        labels: class ids `[N]`.
    """
    decided = scores.argmax(axis=1)
    confidence = softprob_vote(torch.from_numpy(logits)).numpy()[np.arange(len(decided)), decided]
    order = np.argsort(-confidence, kind="stable")
    for position in order[decided[order] != labels[order]][:WORST_ERRORS]:
        yield int(position), int(decided[position]), float(confidence[position])


class RunLogger:
    """Tells nobody; the others derive from it.

    An object serves one run: `track` surrounds it, `summarise` ends it if it is finished.
    """

    def __init__(self) -> None:
        self.logger: Logger | None = None

    @contextmanager
    def track(self, run: Run, config: dict[str, Any]) -> Iterator[list[Logger]]:
        """Lightning's loggers for the run that `config` (resolved) describes; on the first rank alone."""
        if is_first_rank():
            self.logger = self._start(run, config)
        finished = False
        try:
            yield [] if self.logger is None else [self.logger]
            finished = True
        finally:
            if self.logger is not None:
                self._finish(finished)

    def summarise(self, run: Run, config: dict[str, Any], result: dict[str, Any], datamodule: FERDataModule) -> None:
        """Tell the figures of a finished run's `result`. What goes wrong in it is a warning: the training is done."""
        if self.logger is not None:
            try:
                self._summarise(run, config, result, datamodule)
            except Exception as error:  # a lost network, a full disk, a locked database: each package has its own
                log.warning(f"{run.name}: its logger was not told all of the best figures: {explain(error)}")

    def _start(self, run: Run, config: dict[str, Any]) -> Logger | None:
        return None

    def _summarise(self, run: Run, config: dict[str, Any], result: dict[str, Any], datamodule: FERDataModule) -> None:
        pass

    def _finish(self, finished: bool) -> None:
        assert self.logger is not None
        self.logger.finalize("success" if finished else "failed")


class WandbRun(RunLogger):
    """A run of its own in W&B.

    Args:
        project: W&B's project.
        entity: user or team; null is the login's own.
        offline: keep the run in its folder, for `wandb sync`. A run that finds no key or no server does so too.
        images: show faces, in a table of the worst errors.
        start_timeout_seconds: how long to wait for the server.
        upload_timeout_seconds: how long to wait at the run's end for what is not uploaded yet.
    """

    def __init__(
        self,
        project: str,
        entity: str | None,
        offline: bool,
        images: bool,
        start_timeout_seconds: float,
        upload_timeout_seconds: float,
    ) -> None:
        super().__init__()
        self.project, self.entity, self.offline, self.images = project, entity, offline, images
        self.start_timeout_seconds, self.upload_timeout_seconds = start_timeout_seconds, upload_timeout_seconds

    def _start(self, run: Run, config: dict[str, Any]) -> Logger:
        # W&B copies what a table holds, faces among it, to the user's home otherwise, and leaves it there.
        os.environ["WANDB_DATA_DIR"] = str(run.dir / "wandb")
        # silent: it would tell more than the training itself.
        wandb.setup(wandb.Settings(silent=True))
        about = {
            "project": self.project,
            "entity": self.entity,
            "name": run.name,
            "dir": run.dir,
            "group": config["sweep"],
            "tags": [config["dataset"]["name"], config["split"]["name"], f"seed{config['seed']}"],
            "job_type": "refit" if config["refit"] else "train",
            "config": config | {"setting": config["run"]["setting"]},
            "settings": wandb.Settings(
                silent=True,
                init_timeout=self.start_timeout_seconds,
                finish_timeout=self.upload_timeout_seconds,
                finish_timeout_raises=True,
            ),
        }
        self.run = self._start_online(about) or wandb.init(**about, mode="offline")
        self.run.define_metric("*", step_metric="epoch", step_sync=True)
        # Given the run, Lightning's logger starts none: it would set what W&B warns of (`anonymous`).
        return WandbLogger(experiment=self.run, save_dir=run.dir)

    def _start_online(self, about: dict[str, Any]) -> wandb.Run | None:
        mode = "offline" if self.offline else os.environ.get("WANDB_MODE", "online")
        if mode != "online":
            return None if self.offline else wandb.init(**about)
        folder = about["dir"] / "wandb"
        before = set(folder.glob("run-*"))
        try:
            # wandb.init would ask for a key that is not there, and wait for the answer; it verifies one that is.
            if wandb.login(prompt=False, verify=False):
                return wandb.init(**about)
            problem = "there is no key (`wandb login`, or WANDB_API_KEY)"
        except wandb.Error as error:
            problem = str(error).strip().splitlines()[0]
        for attempt in set(folder.glob("run-*")) - before:
            shutil.rmtree(attempt)  # `wandb sync --sync-all` would make an empty run of it
        log.warning(
            f"{about['name']}: W&B: {problem}; the run is kept offline, to upload: wandb sync {folder}/offline-run-*"
        )
        return None

    def _summarise(self, run: Run, config: dict[str, Any], result: dict[str, Any], datamodule: FERDataModule) -> None:
        self.run.summary.update(best_figures(result))  # first, for tables ask the server
        names = result["class_names"]
        told = {}
        for vote, judged in result["votes"].items():
            for stage in [stage for stage in STAGES if stage in judged]:
                key = f"best/{stage}/{vote}"
                counts = judged[stage]["confusion_counts"]
                told[f"{key}/confusion_matrix"] = confusion_chart(counts, names, f"{run.name}, {vote} vote, {stage}")
                if self.images and vote == config["voting"]["name"]:
                    told[f"{key}/worst_errors"] = _error_table(run, vote, stage, names, datamodule)
        self.run.log(told)

    def _finish(self, finished: bool) -> None:
        # Left open, the next run of this process would write into this one.
        try:
            self.run.finish(exit_code=0 if finished else 1)
        except TimeoutError:
            log.warning(
                f"W&B: not all was uploaded within logger.upload_timeout_seconds={self.upload_timeout_seconds:g}; "
                f"the rest: wandb sync {Path(self.run.dir).parent}"
            )


CONFUSION_CHART = "wandb/confusion_matrix/v1"
CONFUSION_FIELDS = {name: name for name in ("Actual", "Predicted", "nPredictions")}


def confusion_chart(counts: list[list[int]], names: list[str], title: str) -> Any:
    """W&B's own chart of a confusion matrix, from counts `[K, K]`, actual class first.

    `wandb.plot.confusion_matrix` makes the same chart, but counts itself.
    """
    rows = [
        [actual, predicted, count]
        for actual, row in zip(names, counts, strict=True)
        for predicted, count in zip(names, row, strict=True)
    ]
    table = wandb.Table(columns=list(CONFUSION_FIELDS), data=rows)
    return wandb.plot_table(CONFUSION_CHART, table, CONFUSION_FIELDS, {"title": title})


def _error_table(run: Run, vote: str, stage: str, names: list[str], datamodule: FERDataModule) -> wandb.Table:
    table = wandb.Table(columns=["image", "name", "actual", "predicted", "confidence"])
    positions = datamodule.positions(stage)
    with np.load(run.predictions_file(vote, stage)) as said:
        labels, samples = said["labels"], said["names"]
        for i, decision, confidence in worst_errors(said["logits"], said["scores"], labels):
            image = wandb.Image(datamodule.pack.images[positions[i]])
            table.add_data(image, str(samples[i]), names[labels[i]], names[decision], confidence)
    return table


class TensorBoardRun(RunLogger):
    """Event files in the run's folder: `tensorboard --logdir outputs/runs`."""

    def __init__(self) -> None:
        super().__init__()
        require("logger=tensorboard", "tensorboard", "tensorboard")

    def _start(self, run: Run, config: dict[str, Any]) -> Logger:
        return TensorBoardLogger(run.dir, name="", version="")

    def _summarise(self, run: Run, config: dict[str, Any], result: dict[str, Any], datamodule: FERDataModule) -> None:
        assert isinstance(self.logger, TensorBoardLogger)
        self.logger.log_hyperparams(flatten(config), best_figures(result))


class MlflowRun(RunLogger):
    """A run in the MLflow database of the output folder: `mlflow ui --backend-store-uri sqlite:///outputs/mlflow.db`.

    Args:
        experiment: MLflow's name for what a run belongs to.
    """

    def __init__(self, experiment: str) -> None:
        super().__init__()
        require("logger=mlflow", "mlflow", "mlflow", "sqlalchemy", "alembic")
        self.experiment = experiment

    def _start(self, run: Run, config: dict[str, Any]) -> Logger:
        os.environ.setdefault("MLFLOW_DISABLE_TELEMETRY", "true")  # read when it is first imported
        from mlflow import MlflowClient

        logging.getLogger("mlflow").setLevel(logging.WARNING)
        output_dir = run.dir.parent.parent
        uri = f"sqlite:///{output_dir / 'mlflow.db'}"
        # Of jobs that start together, one makes the database.
        with (output_dir / ".mlflow.lock").open("w") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            client = MlflowClient(uri)
            if client.get_experiment_by_name(self.experiment) is None:
                client.create_experiment(self.experiment, artifact_location=str(output_dir / "mlflow"))
        tags = {
            "dataset": config["dataset"]["name"],
            "split": config["split"]["name"],
            "seed": str(config["seed"]),
            "sweep": str(config["sweep"]),
            "job_type": "refit" if config["refit"] else "train",
        }
        logger = MLFlowLogger(self.experiment, run_name=run.name, tracking_uri=uri, tags=tags)
        logger.log_hyperparams(flatten(config))
        return logger

    def _summarise(self, run: Run, config: dict[str, Any], result: dict[str, Any], datamodule: FERDataModule) -> None:
        assert self.logger is not None
        self.logger.log_metrics(best_figures(result))
