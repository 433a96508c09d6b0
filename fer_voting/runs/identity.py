"""The identity of a run: every value of its configuration that its results depend on.

`NOT_IDENTITY` lists the other values, each with its reason. What a run reads besides its configuration (data, initial
weights) is compared by `runs.run.Run.check_inputs`.
"""

from collections.abc import Collection, Mapping, Sequence
from fnmatch import fnmatchcase
from typing import Any

from omegaconf import DictConfig, OmegaConf

from fer_voting.config import flatten

NOT_IDENTITY: dict[str, str] = {
    "name": "the run's label",
    "output_dir": "a place",
    "sweep": "the sweep's label",
    "selection": "the name of a run whose identity, data and epochs are compared",
    "threads": "sums of a processor round by it, as by the device; the number is recorded",
    "jobs*": "how many runs train at once",
    "composition.*": "how the other keys came about",
    "protocol.*": "defaults to which trainer.max_epochs, scheduler.lr_gamma_per_epoch and init_from refer",
    "voting.*": "one training serves every vote; a refit, whose length a vote decides, has `refit_voting`",
    "plots": "pictures of the metrics",
    "continue_from": "gives what as many epochs from the start give, or is refused",
    "logger*": "loggers copy metrics and change none",
    "callbacks.forward_memory.*": "measures on a copy of the network",
    "callbacks.throughput.*": "measures only time",
    "model.memory": "`lean` computes the same numbers as `paper`, bit for bit (of a network of your own it counts)",
    "dataset.root": "a place; the data fingerprint identifies what lies there",
    "dataset.cache_dir": "a place",
    "dataset.layout": "says how the files are found; the data fingerprint identifies their content",
    "dataset.manifest": "a place; the data fingerprint identifies the division that it gives",
    "dataset.max_bad_fraction": "only ends a run; the data fingerprint identifies the images that are left",
    "dataset.on_error": "as dataset.max_bad_fraction",
    "dataset.num_workers": "random numbers depend on seed, epoch and image, not on the process that loads it",
    "dataset.resident": "decides where the images are kept, not which they are",
    "trainer.accelerator": "device placement; the device is recorded",
    "trainer.devices": "counted as `batchnorm_ranks`",
    "trainer.num_nodes": "as trainer.devices",
    "trainer.strategy": "device placement",
    "trainer.default_root_dir": "a place",
    "trainer.detect_anomaly": "only ends a run",
    "trainer.enable_autolog_hparams": "loggers copy values and change none",
    "trainer.enable_checkpointing": "a copy of the weights",
    "trainer.enable_model_summary": "output on the screen",
    "trainer.enable_progress_bar": "output on the screen",
    "trainer.inference_mode": "how gradients are switched off where none are computed",
    "trainer.log_every_n_steps": "loggers copy metrics and change none",
    "trainer.model_registry": "a place",
    "trainer.num_sanity_val_steps": "validates before the first step and changes no weight",
    "trainer.profiler*": "measures only time",
    "trainer.use_distributed_sampler": "the data module deals out the ranks' shares, whatever it says",
    "trainer.reload_dataloaders_every_n_epochs": "random numbers depend on seed, epoch and image",
}
"""Key pattern -> why no result depends on it.

Every other argument of `lightning.Trainer` is part of the identity: it decides what is computed, or when it ends.
"""


def resolve(config: DictConfig) -> dict[str, Any]:
    """The configuration as plain containers, interpolations resolved."""
    return OmegaConf.to_container(config, resolve=True)  # type: ignore[return-value]


def identity(config: Mapping[str, Any]) -> dict[str, Any]:
    """The values of a resolved configuration that a run's results depend on, by dotted key.

    Two values are derived: `refit_voting`, the vote of a refit, and `batchnorm_ranks`, where it is not 1. Values that
    nothing uses are left out: `distillation` without a `teacher`, `init_missing_classes` without `init_from`, groups
    and folds that are null.
    """
    unused = [
        *(() if config.get("teacher") else ("teacher", "distillation.*")),
        *(() if config.get("init_from") else ("init_missing_classes",)),
        *(key for key in _OF_GROUPS if (config.get("dataset") or {}).get(key.partition(".")[2]) is None),
    ]
    left_out = NOT_IDENTITY.keys() | unused
    model = config.get("model") or {}
    if not str(model.get("_target_")).startswith("fer_voting."):
        left_out -= {"model.memory"}
    kept = {key: value for key, value in flatten(dict(config)).items() if not matches(key, left_out)}
    if config["refit"]:
        kept["refit_voting"] = config["voting"]["name"]
    if (ranks := batchnorm_ranks(config)) != 1:
        kept["batchnorm_ranks"] = ranks
    return kept


def different_values(recorded: Mapping[str, Any], expected: Mapping[str, Any]) -> str:
    """`key: A there, B here, ...` for the first four values in which two identities differ; "" if they are equal."""
    keys = sorted(k for k in recorded.keys() | expected.keys() if recorded.get(k, ...) != expected.get(k, ...))
    shown = [f"{k}: {recorded.get(k, 'nothing')} there, {expected.get(k, 'nothing')} here" for k in keys[:4]]
    return ", ".join([*shown, *([f"and {len(keys) - 4} more"] if keys[4:] else [])])


PURPOSES = {"init_from": "weights", "teacher": "teacher"}
"""Key that may name another run -> what this run needs it for (`composition.needs`)."""


def recipe(config: Mapping[str, Any]) -> dict[str, Any]:
    """The identity of a settled configuration without seed, split and refit: equal for runs that a table may average.

    `init_from` and `teacher` are the data set and the split that were asked for, where the run of the same seed (and
    split) was; and where a run was named, its split, recipe and data (`composition.sources`).
    """
    kept = {key: value for key, value in identity(config).items() if not matches(key, OF_ROW)}
    for key, purpose in PURPOSES.items():
        if need := config["composition"]["needs"].get(purpose):
            kept[key] = need["of"]
    return kept | config["composition"].get("sources", {})


OF_ROW = ("seed", "dataset.fold", "split.*", "refit", "refit_voting")
"""Keys of the identity for which tables have rows or columns, or over which they average or pool."""
_OF_GROUPS = ("dataset.group", "dataset.folds", "dataset.fold")


def compared_data(result: Mapping[str, Any]) -> str:
    """Fingerprint of the data of a result, which runs of one table share: for a fold, of all folds together."""
    return result.get("data", {}).get("folds", {}).get("fingerprint") or result["data_fingerprint"]


def matches(key: str, patterns: Collection[str]) -> bool:
    """Whether a dotted key matches one of the patterns, in which `*` stands for any text."""
    return key in patterns or any(fnmatchcase(key, pattern) for pattern in patterns if "*" in pattern)


def batchnorm_ranks(config: Mapping[str, Any]) -> int:
    """Number of ranks among which a batch is divided. `mix`, losses of a whole batch (`concordance`), dropout, and
    BatchNorm without `trainer.sync_batchnorm` see only the rank's images."""
    trainer = config["trainer"]
    devices, nodes = trainer.get("devices", 1), int(trainer.get("num_nodes") or 1)
    if isinstance(devices, Sequence) and not isinstance(devices, str):
        return len(devices) * nodes
    if isinstance(devices, str) and "," in devices:
        return len([d for d in devices.split(",") if d.strip()]) * nodes
    if str(devices) in ("auto", "-1"):
        return _device_count(trainer.get("accelerator")) * nodes
    return int(devices) * nodes


def _device_count(accelerator: str | None) -> int:
    """The devices that Lightning takes for `devices=auto`: every GPU, or one process on a CPU."""
    if accelerator == "cpu":
        return 1
    import torch  # takes a second, which most commands need not spend

    return max(1, torch.cuda.device_count())
