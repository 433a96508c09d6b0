"""Trackers: W&B, TensorBoard, MLflow, or none. Each is an option of conf/logger.

A tracker receives the metrics of every epoch, as `module.VotingModule` and the callbacks log them, and the best metrics
of a finished run (`best_metrics`). metrics.csv does not depend on trackers.
"""

import fcntl
import importlib.util
import logging
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from lightning.pytorch.loggers import Logger, MLFlowLogger, TensorBoardLogger, WandbLogger
from numpy.typing import NDArray

from fer_voting.config import explain, flatten
from fer_voting.data.module import FERDataModule
from fer_voting.runs.processes import is_first_rank
from fer_voting.runs.run import Run
from fer_voting.system.arrays import read_npz
from fer_voting.votes import softprob_vote

if TYPE_CHECKING:  # imported where it is used: half a second that a run without W&B need not spend
    import wandb

log = logging.getLogger(__name__)

PARTS = ("val", "test")
WORST_ERRORS = 32


def require(what: str, extra: str, *modules: str) -> None:
    """Raise ValueError with the command that installs the extra, if one of `modules` can't be imported."""
    if missing := [module for module in modules if importlib.util.find_spec(module) is None]:
        raise ValueError(
            f"{what} needs {', '.join(missing)}, which is not installed: in the checkout, pip install -e '.[{extra}]'"
        )


def best_metrics(result: dict[str, Any]) -> dict[str, float]:
    """A finished run's metrics as plain numbers, by name; metrics that were not measured are left out.

    `best/<part>/<vote>/accuracy`, `.../mean_recall` and `.../recall/<class>` are of the vote's best epoch,
    `best/<vote>/epoch`.
    """
    metrics: dict[str, float] = {}
    for vote, scored in result["votes"].items():
        metrics[f"best/{vote}/epoch"] = scored["best_epoch"]
        for part in PARTS:
            if part in scored:
                kept = {name: scored[part][name] for name in ("accuracy", "mean_recall", "recall")}
                for key, value in flatten(kept).items():
                    metrics[f"best/{part}/{vote}/{key.replace('recall.', 'recall/', 1)}"] = value
    cost = ("forward_mib_per_image", "parameters", "gmacs", "torch_gmacs", "images_per_second")
    return metrics | {name: result[name] for name in cost if result.get(name) is not None}


def worst_errors(
    logits: NDArray[np.float32], scores: NDArray[np.float32], labels: NDArray[np.int64]
) -> Iterator[tuple[int, int, float]]:
    """The wrong decisions by falling confidence: position, decision (class id), confidence.

    The confidence is the mean of the crops' softmax for every vote, so that votes compare.

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


class Tracker:
    """No tracker; the base class of the others. One object serves one run."""

    def __init__(self) -> None:
        self.logger: Logger | None = None

    @contextmanager
    def track(self, run: Run, config: dict[str, Any]) -> Iterator[list[Logger]]:
        """Lightning's loggers for the run that `config` (resolved) describes; empty on ranks above 0."""
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
        """Log the best metrics of a finished run. An error is logged as a warning, because the training is done."""
        if self.logger is not None:
            try:
                self._summarise(run, config, result, datamodule)
            except Exception as error:  # a lost network, a full disk, a locked database: each package has its own
                log.warning(f"{run.name}: the tracker did not receive all best metrics: {explain(error)}")

    def _start(self, run: Run, config: dict[str, Any]) -> Logger | None:
        return None

    def _summarise(self, run: Run, config: dict[str, Any], result: dict[str, Any], datamodule: FERDataModule) -> None:
        pass

    def _finish(self, finished: bool) -> None:
        assert self.logger is not None
        self.logger.finalize("success" if finished else "failed")


class WandbTracker(Tracker):
    """A run in W&B.

    Args:
        project: W&B's project.
        entity: user or team; null is the login's own.
        offline: keep the run in its folder, for `wandb sync`; also done where there is no key or no server.
        images: log faces, in a table of the worst errors.
        start_timeout_seconds: how long to wait for the server.
        upload_timeout_seconds: how long to wait for uploads at the run's end.
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
        import wandb

        # By default W&B copies the content of tables, faces among it, into the user's home.
        os.environ["WANDB_DATA_DIR"] = str(run.dir / "wandb")
        # silent: W&B prints more than the training otherwise. The mode here already: else it looks for its server, to
        # which it reports figures about itself.
        mode: Any = "offline" if self.offline else os.environ.get("WANDB_MODE", "online")
        wandb.setup(wandb.Settings(silent=True, mode=mode))
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
        self.run = self._start_online(about, mode) or wandb.init(**about, mode="offline")
        self.run.define_metric("*", step_metric="epoch", step_sync=True)
        # Without a run, Lightning's logger would start one with an option that W&B warns of (`anonymous`).
        return WandbLogger(experiment=self.run, save_dir=run.dir)

    def _start_online(self, about: dict[str, Any], mode: Any) -> "wandb.Run | None":
        import wandb

        if mode != "online":
            return None if self.offline else wandb.init(**about)
        folder = about["dir"] / "wandb"
        before = set(folder.glob("run-*"))
        try:
            # Without a key, wandb.init would prompt for one and wait. With a key, it verifies it.
            if wandb.login(prompt=False, verify=False):
                return wandb.init(**about, mode="online")
            problem = "there is no key (`wandb login`, or WANDB_API_KEY)"
        except wandb.Error as error:
            problem = str(error).strip().splitlines()[0]
        for attempt in set(folder.glob("run-*")) - before:
            shutil.rmtree(attempt)  # `wandb sync --sync-all` would upload it as an empty run
        log.warning(
            f"{about['name']}: W&B: {problem}; the run is kept offline, to upload: wandb sync {folder}/offline-run-*"
        )
        return None

    def _summarise(self, run: Run, config: dict[str, Any], result: dict[str, Any], datamodule: FERDataModule) -> None:
        self.run.summary.update(best_metrics(result))  # first: tables need the server
        names = result["class_names"]
        charts = {}
        for vote, scored in result["votes"].items():
            for part in [part for part in PARTS if part in scored]:
                key = f"best/{part}/{vote}"
                counts = scored[part]["confusion_counts"]
                charts[f"{key}/confusion_matrix"] = confusion_chart(counts, names, f"{run.name}, {vote} vote, {part}")
                if self.images and vote == config["voting"]["name"]:
                    charts[f"{key}/worst_errors"] = _error_table(run, vote, part, names, datamodule)
        self.run.log(charts)

    def _finish(self, finished: bool) -> None:
        # The next run of this process would write into this one otherwise.
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
    import wandb

    rows = [
        [actual, predicted, count]
        for actual, row in zip(names, counts, strict=True)
        for predicted, count in zip(names, row, strict=True)
    ]
    table = wandb.Table(columns=list(CONFUSION_FIELDS), data=rows)
    return wandb.plot_table(CONFUSION_CHART, table, CONFUSION_FIELDS, {"title": title})


def _error_table(run: Run, vote: str, part: str, names: list[str], datamodule: FERDataModule) -> "wandb.Table":
    import wandb

    table = wandb.Table(columns=["image", "name", "actual", "predicted", "confidence"])
    positions = datamodule.positions(part)
    arrays = read_npz(run.predictions_file(vote, part))
    labels, samples = arrays["labels"], arrays["names"]
    for i, decision, confidence in worst_errors(arrays["logits"], arrays["scores"], labels):
        image = wandb.Image(datamodule.pack.images[positions[i]])
        table.add_data(image, str(samples[i]), names[labels[i]], names[decision], confidence)
    return table


class TensorBoardTracker(Tracker):
    """Event files in the run's folder: `tensorboard --logdir outputs/runs`."""

    def __init__(self) -> None:
        super().__init__()
        require("logger=tensorboard", "tensorboard", "tensorboard")

    def _start(self, run: Run, config: dict[str, Any]) -> Logger:
        return TensorBoardLogger(run.dir, name="", version="")

    def _summarise(self, run: Run, config: dict[str, Any], result: dict[str, Any], datamodule: FERDataModule) -> None:
        assert isinstance(self.logger, TensorBoardLogger)
        self.logger.log_hyperparams(flatten(config), best_metrics(result))


class MlflowTracker(Tracker):
    """A run in the MLflow database of the output folder: `mlflow ui --backend-store-uri sqlite:///outputs/mlflow.db`.

    Args:
        experiment: the MLflow experiment that the runs belong to.
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
        # One of the jobs that start at the same time creates the database.
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
        self.logger.log_metrics(best_metrics(result))
