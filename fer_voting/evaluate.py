"""Judge a trained network on a data set: `python -m fer_voting.evaluate checkpoint=RUN dataset=... [stage=test]`.

The network's classes meet the data set's by name, whatever the order of either. Writes every vote's figures, and a
confusion matrix of the soft vote, into the folder `out=`.
"""

import logging
from pathlib import Path
from typing import Any

from omegaconf import DictConfig

from fer_voting.config import command
from fer_voting.runs.identity import resolve
from fer_voting.runs.run import Run
from fer_voting.system.atomic import write_json

__all__ = ["evaluate", "main"]

log = logging.getLogger("fer_voting.evaluate")  # `__name__` is `__main__` where this file is the command

STAGES = ("val", "test")


def evaluate(config: dict[str, Any]) -> tuple[Path, dict[str, Any]]:
    """Evaluate what a resolved configuration describes; returns the JSON file's path and its content.

    Images have the size at which the network was trained; `dataset.size` may only repeat it.

    Raises ValueError if the stage does not exist, the size is not the checkpoint's, or the network lacks a class of
    the data set; FileNotFoundError if there is no such checkpoint.
    """
    # Imported here: `--help` and a misspelt key need none of it, and it takes seconds.
    import numpy as np
    import torch
    from hydra.utils import instantiate

    from fer_voting.data.module import make_datamodule
    from fer_voting.models import VotingResNet18
    from fer_voting.models.checkpoint import NetworkInfo, load_weights
    from fer_voting.results.plots import draw_confusion
    from fer_voting.system.environment import describe_device, git_commit, package_versions
    from fer_voting.training.initialise import initialise
    from fer_voting.training.module import VotingModule

    if config["stage"] not in STAGES:
        raise ValueError(f"stage={config['stage']} must be {' or '.join(STAGES)}")
    path = _checkpoint(config)
    _, record = load_weights(path)
    if config["dataset"]["size"] not in (None, record.image_size):
        raise ValueError(
            f"dataset.size={config['dataset']['size']} must be {record.image_size}, the size at which {path} was "
            "trained; leave it out"
        )
    dataset = {**config["dataset"], "size": record.image_size}
    # First of all, for a wrong accelerator shows here.
    trainer = instantiate(
        {**config["trainer"], "max_epochs": 1},
        logger=False,
        enable_checkpointing=False,
        enable_model_summary=False,
        use_distributed_sampler=False,
    )
    if trainer.world_size > 1:
        raise ValueError("a checkpoint is judged on one device: trainer=auto, or trainer.devices=1")
    datamodule = make_datamodule(dataset)
    datamodule.setup()
    if config["stage"] not in datamodule.counts():
        raise ValueError(f"{datamodule.name} has no {config['stage']} images here; stage=val judges on the others")

    net = VotingResNet18(record.split, len(datamodule.class_names), record.width)
    try:
        initialise(net, datamodule.class_names, path)
    except ValueError as error:
        told = str(error).partition("; init_missing_classes")[0]
        raise ValueError(f"{told}: it can't be judged on {datamodule.name}") from error
    seen = NetworkInfo(record.split, record.width, datamodule.class_names, record.image_size, datamodule.name)
    module = VotingModule(net, torch.optim.Adam, 1.0, seen)  # the optimizer is not used
    run_stage = trainer.validate if config["stage"] == "val" else trainer.test
    run_stage(module, datamodule=datamodule, verbose=False)

    result = {
        "checkpoint": str(path),
        "trained_on": record.dataset,
        "split": record.split,
        "image_size": record.image_size,
        "dataset": datamodule.name,
        "synthetic": datamodule.synthetic,
        "stage": config["stage"],
        "class_names": list(datamodule.class_names),
        "images": sum(datamodule.counts()[config["stage"]].values()),
        "data_fingerprint": datamodule.fingerprint,
        "votes": module.evaluation,
        "versions": package_versions(),
        "git_commit": git_commit(),
        "device": describe_device(module.device),
    }
    source = path.parent.parent.name if path.parent.name == "checkpoints" else path.stem
    out = Path(config["out"]) / f"{source}-on-{datamodule.name}-{config['stage']}.json"
    counts = np.array(module.evaluation["soft"]["confusion_counts"])
    title = f"{source} on {datamodule.name}, soft vote, {config['stage']}"
    note = " (synthetic faces)" if datamodule.synthetic else ""
    draw_confusion(out.with_suffix(".png"), counts, datamodule.class_names, title + note)
    write_json(out, result)
    return out, result


def _checkpoint(config: dict[str, Any]) -> Path:
    checkpoint = config["checkpoint"]
    if checkpoint is None:
        raise ValueError("checkpoint is not set: give a run's name or a .ckpt file, checkpoint=...")
    if checkpoint.endswith(".ckpt"):
        return Path(checkpoint)
    run = Run(Path(config["output_dir"]), checkpoint)
    if (status := run.status()) != "finished":
        raise FileNotFoundError(f"checkpoint={checkpoint}: the run in {run.dir} is {status}, not finished")
    return run.best_checkpoint("soft")


def job(config: DictConfig) -> None:
    out, result = evaluate(resolve(config))
    print(f"{result['images']:,} {result['stage']} images of {result['dataset']}, trained on {result['trained_on']}")
    for vote, figures in result["votes"].items():
        print(f"{vote:>8} vote: accuracy {figures['accuracy']:.2%}, mean recall {figures['mean_recall']:.2%}")
    log.info("written to %s, and the confusion matrix beside it", out)


def main() -> None:
    command(job, "evaluate")


if __name__ == "__main__":
    main()
