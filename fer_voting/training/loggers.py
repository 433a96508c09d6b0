"""Loggers of Lightning: what `conf/logger/` makes of W&B and MLflow, and what a finished run logs besides its epochs.

TensorBoard, and any other logger, is Lightning's own class in a file of `conf/logger/`. metrics.csv does not depend on
loggers, and what a logger raises never ends a training.
"""

import fcntl
import functools
import importlib.util
import logging
import os
import shutil
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from lightning.pytorch.loggers import Logger, MLFlowLogger, TensorBoardLogger, WandbLogger
from numpy.typing import NDArray

from fer_voting.config import explain, flatten
from fer_voting.data.module import FERDataModule
from fer_voting.runs.run import Run
from fer_voting.system.arrays import read_npz
from fer_voting.system.ranks import is_first_rank
from fer_voting.votes import softprob_vote

if TYPE_CHECKING:  # imported where it is used: half a second that a run without W&B need not spend
    import wandb

log = logging.getLogger(__name__)

PARTS = ("val", "test")
WORST_ERRORS = 32


def best_metrics(result: Mapping[str, Any]) -> dict[str, float]:
    """A finished run's metrics as plain numbers, by name; metrics that were not measured are left out.

    `best/<part>/<vote>/accuracy`, `.../mean_recall` and `.../recall/<class>` are of the vote's best epoch,
    `best/<vote>/epoch`.
    """
    metrics: dict[str, float] = {}
    for vote, scored in result["votes"].items():
        metrics[f"best/{vote}/epoch"] = scored["best_epoch"]
        for part in PARTS:
            if part in scored:
                kept = {k: v for k, v in flatten(scored[part]).items() if isinstance(v, int | float)}
                for key, value in kept.items():
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


EXTRAS = {"tensorboard": ("tensorboard",), "mlflow": ("mlflow", "sqlalchemy", "alembic")}
"""Loggers that need an extra of the same name -> its modules."""

Start = Callable[[], Logger]


def require(what: str, extra: str, *modules: str) -> None:
    """Raise ValueError with the command that installs the extra, if one of `modules` can't be imported."""
    if missing := [module for module in modules if importlib.util.find_spec(module) is None]:
        raise ValueError(
            f"{what} needs {', '.join(missing)}, which is not installed: pip install 'fer_voting[{extra}]', "
            f"in a checkout pip install -e '.[{extra}]'"
        )


@contextmanager
def running_loggers(starts: Sequence[Start]) -> Iterator[list[Logger]]:
    """Started loggers, for the time of the context; none on ranks above 0. What they raise is logged as a warning."""
    loggers: list[Logger] = []
    status = "failed"
    try:
        for start in starts if is_first_rank() else []:
            try:
                loggers.append(_tolerant(start()))
            except (ImportError, ValueError):
                raise
            except Exception as error:
                log.warning(f"the training goes on without a logger that did not start: {explain(error)}")
        yield loggers
        status = "success"
    finally:
        for logger in loggers:
            logger.finalize(status)
            if isinstance(logger, OneRunWandbLogger):
                logger.finish(status)


def _tolerant(logger: Logger) -> Logger:
    """`logger`, of which the methods that Lightning calls log what they raise: each package has errors of its own for a
    lost network, a full disk, a locked database, and none of them may end a training."""

    def tolerant(method: Callable[..., Any]) -> Callable[..., Any]:
        @functools.wraps(method)
        def call(*args: Any, **kwargs: Any) -> Any:
            try:
                return method(*args, **kwargs)
            except Exception as error:
                log.warning(f"{type(logger).__name__}.{method.__name__}: {explain(error)}")

        return call

    for name in ("log_metrics", "log_hyperparams", "log_graph", "save", "finalize", "after_save_checkpoint", "finish"):
        if hasattr(logger, name):
            setattr(logger, name, tolerant(getattr(logger, name)))
    return logger


def log_hyperparameters(loggers: Sequence[Logger], values: dict[str, Any]) -> None:
    """Log the values of a configuration. TensorBoard takes them together with the best metrics (`log_best`)."""
    for logger in loggers:
        if not isinstance(logger, TensorBoardLogger):
            logger.log_hyperparams(values if isinstance(logger, WandbLogger) else flatten(values))


def log_best(
    loggers: Sequence[Logger], run: Run, hyperparameters: dict[str, Any], result: Mapping[str, Any], data: FERDataModule
) -> None:
    """Log the best metrics of a finished run, and the charts that a logger has for them.

    Args:
        result: content of result.json.
    """
    for logger in loggers:
        try:
            best = best_metrics(result)
            if isinstance(logger, OneRunWandbLogger):
                logger.summarise(
                    best, _charts(run, hyperparameters["voting"]["name"], result, data if logger.images else None)
                )
            elif isinstance(logger, TensorBoardLogger):
                logger.log_hyperparams(flatten(hyperparameters), best)
            else:
                logger.log_metrics(best)
        except Exception as error:
            log.warning(f"{run.name}: {type(logger).__name__} did not receive all best metrics: {explain(error)}")


# W&B --------------------------------------------------------------------------------------------------------------


class OneRunWandbLogger(WandbLogger):
    """Lightning's logger, of one W&B run that it ends: the next run of this process would write into it.

    Args:
        run: as `wandb.init` returned it.
        save_dir: Lightning's place for files besides W&B's.
        images: log faces, in a table of the worst errors. Faces are personal data.
        upload_timeout_seconds: of the run, for the message.
    """

    def __init__(self, run: "wandb.Run", save_dir: Path, images: bool, upload_timeout_seconds: float) -> None:
        # Without a run, Lightning's logger would start one with an option that W&B warns of (`anonymous`).
        super().__init__(experiment=run, save_dir=save_dir)
        self.images, self.upload_timeout_seconds = images, upload_timeout_seconds

    def summarise(self, best: Mapping[str, float], charts: Mapping[str, Any]) -> None:
        self.experiment.summary.update(best)  # first: tables need the server
        self.experiment.log(charts)

    def finish(self, status: str) -> None:
        try:
            self.experiment.finish(exit_code=0 if status == "success" else 1)
        except TimeoutError:
            log.warning(
                f"W&B: not all was uploaded within logger.wandb.upload_timeout_seconds="
                f"{self.upload_timeout_seconds:g}; the rest: wandb sync {Path(self.experiment.dir).parent}"
            )


def wandb_logger(
    *,
    offline: bool,
    images: bool,
    save_dir: str,
    start_timeout_seconds: float,
    upload_timeout_seconds: float,
    **about: Any,
) -> OneRunWandbLogger:
    """A run in W&B; kept offline, for `wandb sync`, also where there is no key or no server.

    Args:
        offline: keep the run in its folder.
        images: log faces, in a table of the worst errors.
        save_dir: the run's folder.
        start_timeout_seconds: how long to wait for the server.
        upload_timeout_seconds: how long to wait for uploads at the run's end.
        about: further arguments of `wandb.init`.
    """
    import wandb

    folder = Path(save_dir).absolute()
    # By default W&B copies the content of tables, faces among it, into the user's home.
    os.environ["WANDB_DATA_DIR"] = str(folder / "wandb")
    # silent: W&B prints more than the training otherwise. The mode here already: else it looks for its server, to which
    # it reports figures about itself.
    mode: Any = "offline" if offline else os.environ.get("WANDB_MODE", "online")
    wandb.setup(wandb.Settings(silent=True, mode=mode))
    settings = wandb.Settings(
        silent=True,
        init_timeout=start_timeout_seconds,
        finish_timeout=upload_timeout_seconds,
        finish_timeout_raises=True,
    )
    # A run that this process has open already, whoever began it, is neither used nor ended.
    about |= {"dir": folder, "settings": settings, "reinit": "create_new"}
    run = _start_online(about) if mode == "online" else None
    run = run or wandb.init(**about, mode="offline" if mode == "online" else mode)
    run.define_metric("*", step_metric="epoch", step_sync=True)
    return OneRunWandbLogger(run, folder, images, upload_timeout_seconds)


def _start_online(about: dict[str, Any]) -> "wandb.Run | None":
    import wandb

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


def _charts(run: Run, vote: str, result: Mapping[str, Any], data: FERDataModule | None) -> dict[str, Any]:
    """A confusion matrix of each vote and part, and with `data` a table of the worst errors of `vote`."""
    names, charts = result["class_names"], {}
    for each, scored in result["votes"].items():
        for part in [part for part in PARTS if part in scored]:
            key = f"best/{part}/{each}"
            counts = scored[part]["confusion_counts"]
            charts[f"{key}/confusion_matrix"] = confusion_chart(counts, names, f"{run.name}, {each} vote, {part}")
            if data is not None and each == vote:
                charts[f"{key}/worst_errors"] = _error_table(run, each, part, names, data)
    return charts


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


def _error_table(run: Run, vote: str, part: str, names: list[str], data: FERDataModule) -> "wandb.Table":
    import wandb

    table = wandb.Table(columns=["image", "name", "actual", "predicted", "confidence"])
    positions = data.positions(part)
    arrays = read_npz(run.predictions_file(vote, part))
    labels, samples = arrays["labels"], arrays["names"]
    for i, decision, confidence in worst_errors(arrays["logits"], arrays["scores"], labels):
        image = wandb.Image(data.pack.images[positions[i]])
        table.add_data(image, str(samples[i]), names[labels[i]], names[decision], confidence)
    return table


# MLflow -----------------------------------------------------------------------------------------------------------


def mlflow_logger(*, experiment: str, output_dir: str, run_name: str, tags: Mapping[str, Any]) -> MLFlowLogger:
    """A run in the MLflow database of the output folder: `mlflow ui --backend-store-uri sqlite:///outputs/mlflow.db`.

    Args:
        experiment: the MLflow experiment that the runs belong to.
    """
    os.environ.setdefault("MLFLOW_DISABLE_TELEMETRY", "true")  # read when it is first imported
    from mlflow import MlflowClient

    logging.getLogger("mlflow").setLevel(logging.WARNING)
    folder = Path(output_dir).absolute()
    uri = f"sqlite:///{folder / 'mlflow.db'}"
    # One of the jobs that start at the same time creates the database.
    with (folder / ".mlflow.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        client = MlflowClient(uri)
        if client.get_experiment_by_name(experiment) is None:
            client.create_experiment(experiment, artifact_location=str(folder / "mlflow"))
    return MLFlowLogger(experiment, run_name=run_name, tracking_uri=uri, tags={k: str(v) for k, v in tags.items()})
