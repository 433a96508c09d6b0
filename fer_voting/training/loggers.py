"""Loggers of Lightning: what `conf/logger/` makes of W&B and MLflow, and what a finished run logs besides its epochs.

TensorBoard, and any other logger, is Lightning's own class in a file of `conf/logger/`. metrics.csv does not depend on
loggers, and what a logger raises never ends a training.
"""

import fcntl
import functools
import hashlib
import importlib.util
import inspect
import logging
import math
import os
import re
import secrets
import shutil
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

import numpy as np
import torch
from lightning.pytorch.loggers import Logger, MLFlowLogger, TensorBoardLogger, WandbLogger
from lightning.pytorch.loggers.logger import DummyLogger
from numpy.typing import NDArray

from fer_voting.config import explain, flatten
from fer_voting.data.module import FERDataModule
from fer_voting.runs.run import Run
from fer_voting.system.arrays import read_npz
from fer_voting.system.ranks import is_first_rank
from fer_voting.votes import softprob_vote

if TYPE_CHECKING:  # imported where it is used: half a second that a run without W&B need not spend
    import wandb
    from mlflow import MlflowClient

log = logging.getLogger(__name__)

PARTS = ("val", "test")
WORST_ERRORS = 32


def best_metrics(result: Mapping[str, Any]) -> dict[str, float]:
    """A finished run's metrics as plain numbers, by name; metrics that were not measured are left out.

    `best/<part>/<vote>/accuracy`, `.../mean_recall` and `.../recall/<class>`, or `.../mean_ccc` and `.../ccc/<number>`,
    are of the vote's best epoch, `best/<vote>/epoch`.
    """
    metrics: dict[str, float] = {}
    for vote, scored in result["votes"].items():
        metrics[f"best/{vote}/epoch"] = scored["best_epoch"]
        for part in PARTS:
            if part in scored:
                kept = {k: v for k, v in flatten(scored[part]).items() if isinstance(v, int | float)}
                for key, value in kept.items():
                    metrics[f"best/{part}/{vote}/{key.replace('.', '/', 1)}"] = value
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
    """Started loggers, for the time of the context.

    Nothing that they raise leaves them. In place of one that does not start, and of each on ranks above 0, stands
    Lightning's logger that does nothing: callbacks that ask for a logger find one.
    """
    loggers: list[Logger] = []
    status = "failed"
    try:
        for start in starts:
            loggers.append(_started(start) if is_first_rank() else DummyLogger())
        yield loggers
        status = "success"
    finally:
        for logger in loggers:
            logger.finalize(status)
            if isinstance(logger, OneRunWandbLogger):
                logger.finish(status)


def _started(start: Start) -> Logger:
    try:
        logger = start()
        getattr(logger, "experiment", None)  # where Lightning's loggers open their files or their run
    except Exception as error:
        name = getattr(start, "func", start).__name__
        log.warning(f"the training goes on without {name}, which did not start: {explain(error)}")
        return DummyLogger()
    return cast(Logger, TolerantLogger(logger))


class TolerantLogger:
    """A logger whose attributes and methods log what they raise, once a method and class of error.

    Each package has errors of its own for a lost network, a full disk, a locked database, and none of them may end a
    training. For `isinstance` it is what it wraps.
    """

    def __init__(self, logger: Logger) -> None:
        self._logger = logger
        self._reported: set[tuple[str, type]] = set()

    @property  # type: ignore[misc]
    def __class__(self) -> type:
        return type(self._logger)

    def __getattr__(self, name: str) -> Any:
        try:
            value = getattr(self._logger, name)
        except Exception as error:
            if not hasattr(type(self._logger), name):
                raise
            self._report(name, error)
            return getattr(DummyLogger(), name) if hasattr(DummyLogger, name) else None
        if not inspect.ismethod(value):
            return value

        @functools.wraps(value)
        def call(*args: Any, **kwargs: Any) -> Any:
            try:
                return value(*args, **kwargs)
            except Exception as error:
                self._report(name, error)

        return call

    def _report(self, name: str, error: Exception) -> None:
        if (reason := (name, type(error))) not in self._reported:
            self._reported.add(reason)
            log.warning(f"the training goes on, {type(self._logger).__name__}.{name} failed: {explain(error)}")


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
    best = best_metrics(result)
    for logger in loggers:
        if isinstance(logger, OneRunWandbLogger):
            logger.summarise(best)  # first: tables need the server
            logger.log_charts(run, hyperparameters["voting"]["name"], result, data)
        elif isinstance(logger, TensorBoardLogger):
            logger.log_hyperparams(flatten(hyperparameters), best)
        else:
            logger.log_metrics(best)


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

    def summarise(self, best: Mapping[str, float]) -> None:
        self.experiment.summary.update(best)

    def log_charts(self, run: Run, vote: str, result: Mapping[str, Any], data: FERDataModule) -> None:
        """The charts of each vote and part (`_charts`), and with `images` a table of the worst errors of `vote`."""
        self.experiment.log(_charts(run, vote, result, data if self.images else None))

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
    if os.path.expanduser("~") == "~":  # a user without a home directory, which W&B does not start without
        os.environ["HOME"] = str(folder / "wandb")
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
    # A run that this process has open already, whoever began it, is neither used nor ended. A training that continues
    # goes on with the run of its folder.
    about |= {"dir": folder, "settings": settings, "reinit": "create_new", "resume": "allow"}
    run = _start_online(about, start_timeout_seconds) if mode == "online" else None
    run = run or wandb.init(**about, id=_kept_id(folder), mode="offline" if mode == "online" else mode)
    run.define_metric("*", step_metric="epoch", step_sync=True)
    return OneRunWandbLogger(run, folder, images, upload_timeout_seconds)


def _kept_id(folder: Path) -> str:
    """The id in W&B of the run in a folder, which keeps it from its first start on."""
    file = folder / "wandb-id.txt"
    if not file.exists():
        folder.mkdir(parents=True, exist_ok=True)
        file.write_text(secrets.token_hex(4))
    return file.read_text().strip()


def _start_online(about: dict[str, Any], timeout_seconds: float) -> "wandb.Run | None":
    import wandb

    folder = about["dir"]
    before = set(folder.glob("wandb/run-*"))
    try:
        # Without a key, wandb.init would prompt for one and wait.
        if wandb.login(prompt=False, verify=False):
            wandb.Api(timeout=math.ceil(timeout_seconds))  # raises where there is no server, or it refuses the key
            return wandb.init(**about, id=_kept_id(folder), mode="online")
        problem = "there is no key (`wandb login`, or WANDB_API_KEY)"
    except wandb.Error as error:
        problem = str(error).strip().splitlines()[0]
    for attempt in set(folder.glob("wandb/run-*")) - before:
        shutil.rmtree(attempt)  # `wandb sync --sync-all` would upload it as an empty run
        (folder / "wandb-id.txt").unlink()  # in this process, its id is the attempt's
    log.warning(
        f"{about['name']}: W&B: {problem}; the run is kept offline, to upload: wandb sync {folder}/wandb/offline-run-*"
    )
    return None


def _charts(run: Run, vote: str, result: Mapping[str, Any], data: FERDataModule | None) -> dict[str, Any]:
    """A confusion matrix of the classes and a scatter plot of each number, by vote and part; with `data` a table of
    the worst errors of `vote`."""
    import wandb

    names, charts = result["class_names"], dict[str, Any]()
    for each, scored in result["votes"].items():
        for part in [part for part in PARTS if part in scored]:
            key, title = f"best/{part}/{each}", f"{run.name}, {each} vote, {part}"
            arrays = read_npz(run.predictions_file(each, part)) if result["number_names"] else {}
            for i, number in enumerate(result["number_names"]):
                columns = [number, f"predicted {number}"]
                pairs = np.stack([arrays["number_labels"][:, i], arrays["number_scores"][:, i]], axis=1)
                table = wandb.Table(columns=columns, data=pairs.tolist())
                charts[f"{key}/{number}"] = wandb.plot.scatter(table, *columns, title=title)
            if not names:
                continue
            charts[f"{key}/confusion_matrix"] = confusion_chart(scored[part]["confusion_counts"], names, title)
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


class OneRunMLFlowLogger(MLFlowLogger):
    """Lightning's logger with names in any script and values as long as MLflow takes them, of one run.

    A name that is not MLflow's (`mlflow_name`) is a tag in clear, `name/<as MLflow has it>`.
    """

    def log_metrics(self, metrics: Mapping[str, float], step: int | None = None) -> None:
        super().log_metrics({mlflow_name(name): value for name, value in metrics.items()}, step)
        last_words = {name.rpartition("/")[2] for name in metrics if mlflow_name(name) != name}
        self._set_tags({mlflow_name(f"name/{word}"): word for word in last_words})

    def log_hyperparams(self, params: dict[str, Any]) -> None:  # type: ignore[override]
        """Log each value as a parameter; one that changed since the run began, as a tag, because parameters can't."""
        from mlflow.entities import Param
        from mlflow.utils.validation import MAX_PARAM_VAL_LENGTH

        values = {mlflow_name(name): _shortened(value, MAX_PARAM_VAL_LENGTH) for name, value in flatten(params).items()}
        known = self.experiment.get_run(self.run_id).data.params
        new = [Param(name, value) for name, value in values.items() if name not in known]
        self.experiment.log_batch(self.run_id, params=new)
        self._set_tags({name: value for name, value in values.items() if known.get(name, value) != value})

    def _set_tags(self, tags: Mapping[str, str]) -> None:
        known = self.experiment.get_run(self.run_id).data.tags if tags else {}
        for name, value in tags.items():
            if known.get(name) != value:
                self.experiment.set_tag(self.run_id, name, value)


_NOT_OF_MLFLOW = re.compile(
    r"[^A-Za-z0-9_/. -]"  # Lightning's logger would drop it, and "Über" become "ber"
    r"|-(?=[0-9A-F]{2})"  # would read as one that was replaced
    r"|^/|(?<=/)/|/\Z|(?:^|(?<=/))\.(?=\.?(?:/|\Z))"  # as a path, it would be another name
)
MLFLOW_NAME_LENGTH = 250


def mlflow_name(name: str) -> str:
    """A name as MLflow has it: each character that it or Lightning's logger refuses is `-XX` for each byte in UTF-8.

    Different names stay different; of one that is longer than MLflow's limit, a digest takes the place of the end.

    >>> mlflow_name("recall/Über")
    'recall/-C3-9Cber'
    """
    escaped = _NOT_OF_MLFLOW.sub(lambda match: "".join(f"-{byte:02X}" for byte in match[0].encode()), name)
    if len(escaped) <= MLFLOW_NAME_LENGTH:
        return escaped
    digest = hashlib.sha256(name.encode()).hexdigest()[:16]
    return f"{escaped[: MLFLOW_NAME_LENGTH - len(digest) - 1]}-{digest}"


def _shortened(value: Any, length: int) -> str:
    text = str(value)
    return text if len(text) <= length else f"{text[: length - 1]}…"


def mlflow_logger(
    *, experiment: str, output_dir: str, save_dir: str, run_name: str, tags: Mapping[str, Any]
) -> OneRunMLFlowLogger:
    """A run in the MLflow database of the output folder: `mlflow ui --backend-store-uri sqlite:///outputs/mlflow.db`.

    A training that continues goes on with the run whose id its folder keeps.

    Args:
        experiment: the MLflow experiment that the runs belong to.
        save_dir: the run's folder.
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
    kept = Path(save_dir) / "mlflow-id.txt"
    run_id = _known_run(client, kept.read_text().strip()) if kept.exists() else None
    logger = OneRunMLFlowLogger(
        experiment, run_name=run_name, tracking_uri=uri, tags={k: str(v) for k, v in tags.items()}, run_id=run_id
    )
    kept.parent.mkdir(parents=True, exist_ok=True)
    kept.write_text(str(logger.run_id))
    return logger


def _known_run(client: "MlflowClient", run_id: str) -> str | None:
    """The id of a run that is going on again; None if the database has no such run."""
    from mlflow.exceptions import MlflowException

    try:
        client.update_run(run_id, status="RUNNING")
    except MlflowException:
        return None
    return run_id
