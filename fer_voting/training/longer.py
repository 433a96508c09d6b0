"""More epochs for a finished run: `continue_from=RUN trainer.max_epochs=N`.

The new run begins with the files of the finished one, as if it had been killed there; so it ends as N epochs from the
start would have ended. That holds only where nothing depends on how long the whole training is.
"""

import logging
import shutil
import time
from pathlib import Path

from hydra.utils import instantiate
from omegaconf import DictConfig

from fer_voting.runs.identity import resolve
from fer_voting.runs.run import Run
from fer_voting.system.ranks import is_first_rank
from fer_voting.training.schedules import depends_on_length

log = logging.getLogger(__name__)


def begin_from_finished(config: DictConfig, run: Run) -> None:
    """Give `run` the files of the run that `continue_from` names, unless it has begun already.

    Raises FileNotFoundError if that is no finished run with its last checkpoint, ValueError if the two runs differ in
    more than trainer.max_epochs, or if N epochs from the start would give other weights.
    """
    if run.last_checkpoint.exists():
        return
    source = _source(config)
    result = source.finished_result()
    if result is None or not source.last_checkpoint.exists():
        lacks = f"is {source.status()}" if result is None else "has no checkpoints/last.ckpt, which was removed"
        raise FileNotFoundError(
            f"continue_from={config.continue_from}: the run in {source.dir} {lacks}: only a finished run with its last "
            "checkpoint trains on; leave continue_from out to train from the start"
        )
    if reason := _why_not(config, source):
        raise ValueError(f"continue_from={config.continue_from}: {reason}")
    if not is_first_rank():
        while not run.last_checkpoint.exists():  # rank 0 copies the files
            time.sleep(0.1)
        return
    run.last_checkpoint.parent.mkdir(exist_ok=True)
    best = sorted(source.last_checkpoint.parent.glob("best-*.ckpt"))
    for file in [source.dir / "inputs.json", source.metrics_file, *best]:
        shutil.copyfile(file, run.dir / file.relative_to(source.dir))
    run.write_result(result | {"name": run.name, "status": "running"})  # its seconds count
    draft = run.last_checkpoint.with_name(".last.ckpt")
    shutil.copyfile(source.last_checkpoint, draft)
    draft.replace(run.last_checkpoint)  # last: a kill before it begins again
    log.info(f"{run.name}: trains on from the {result['epochs']} epochs of {source.dir}")


def _source(config: DictConfig) -> Run:
    folder = Path(config.continue_from)
    run = Run(Path(config.output_dir), folder.name)
    if (folder / "config.yaml").is_file():
        run.dir = folder.absolute()
    return run


def _why_not(config: DictConfig, source: Run) -> str | None:
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
            f"training, so that {epochs_before} epochs are not the beginning of {epochs}: train them from the start"
        )
    if "StochasticWeightAveraging" in str(ours["callbacks"]):
        return "StochasticWeightAveraging begins at a share of the whole training: train from the start"
    return None
