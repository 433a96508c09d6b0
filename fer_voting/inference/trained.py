"""A finished run as what an export needs: the network, what is recorded about it, and faces of its own data set."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from omegaconf import OmegaConf
from omegaconf.errors import OmegaConfBaseException

from fer_voting.inference.network import load_network
from fer_voting.models.adaptive import adaptive_cost, fit_adaptive, require_cut
from fer_voting.models.checkpoint import NetworkInfo
from fer_voting.models.registry import rebuild_network
from fer_voting.models.voting import VotingNetwork
from fer_voting.runs.run import Run
from fer_voting.system.arrays import read_npz
from fer_voting.votes import ALL_VOTES, FITTED_VOTES, UNFITTED, Fitted, vote_of_epoch

if TYPE_CHECKING:  # Lightning takes seconds to import
    from fer_voting.data.module import FERDataModule


@dataclass(frozen=True, eq=False)
class TrainedNetwork:
    """The network of a run's best epoch by one vote."""

    run: Run
    net: VotingNetwork
    """Maps normalised images `[B, 3, S, S]` to crop logits `[B, V, K]`; evaluation mode."""
    info: NetworkInfo
    """With the split under which it is to be used; `result` has the one under which it was trained."""
    vote: str
    result: Mapping[str, Any]
    """`result.json`"""
    config: Mapping[str, Any]
    """`config.yaml`"""
    fitted: Fitted = UNFITTED
    """What the vote took from the run's validation images under its own split."""

    @property
    def accuracy(self) -> dict[str, float]:
        """Share of right decisions by part (`val`, `test`); empty under another split than the run's, where it is not
        known."""
        if self.info.split != self.result["split"]:
            return {}
        metrics = self.result["votes"][self.vote]
        return {part: float(metrics[part]["accuracy"]) for part in ("val", "test") if part in metrics}


def find_run(run: Path | str, output_dir: Path) -> Run:
    """The run of that folder, or of that name below `<output_dir>/runs`.

    Raises FileNotFoundError if it is not finished, ValueError if it cannot be a run's name.
    """
    folder = Path(run).absolute()
    if folder.parent.name == "runs" and (folder / "checkpoints").is_dir():
        found = Run(folder.parent.parent, folder.name)
    else:
        found = Run(output_dir, str(run))
    if (status := found.status()) != "finished":
        raise FileNotFoundError(f"run {str(run)!r}: {found.dir} is {status}, not finished")
    return found


def load_trained(run: Run, vote: str | None = None, split: str | None = None) -> TrainedNetwork:
    """The network of a finished run.

    Args:
        vote: whose best epoch; None: the one that the run was configured for.
        split: to use it under; None: the one that it was trained with. All splits have the same weights.

    Raises FileNotFoundError if the run has no such checkpoint, ValueError if a name is unknown or a file is damaged.
    """
    result = run.result()
    assert result is not None  # it is finished
    config = run.config()
    if missing := [f"config.yaml: {key}" for key in ("dataset", "voting") if not isinstance(config.get(key), dict)] + [
        f"result.json: {key}"
        for key in ("votes", "split", "counts", "epochs", "seed", "data_fingerprint")
        if key not in result
    ]:
        raise ValueError(f"{run.dir} is not a run's folder as training writes it: it lacks {', '.join(missing)}")
    vote = vote or str(config["voting"].get("name"))
    if vote not in ALL_VOTES:
        raise ValueError(f"`vote` (={vote!r}) must be one of {', '.join(ALL_VOTES)}")
    net, info = load_network(run.best_checkpoint(vote_of_epoch(vote)))
    if split not in (None, info.split):
        info = replace(info, split=split)
        moved = rebuild_network(info)
        moved.load_state_dict(net.state_dict())
        net = moved.eval()
    if vote == "adaptive":
        require_cut(net)
    if vote in FITTED_VOTES and info.split != result["split"]:
        raise ValueError(
            f"the {vote} vote of {run.name} was fitted under split {result['split']}: it has none under {info.split}"
        )
    # Fitted on the trained split's scores.
    fitted = Fitted.from_values(result["votes"].get(vote, {}) if info.split == result["split"] else {})
    fitted.check(vote)
    return TrainedNetwork(run, net, info, vote, result, config, fitted)


def with_mean_gmacs(trained: TrainedNetwork, mean_gmacs: float) -> TrainedNetwork:
    """The adaptive vote with the threshold that the run's validation images give for a mean cost.

    Raises ValueError if it is another vote, the cost is less than the whole map's, or the stored logits are damaged;
    FileNotFoundError if there are none.
    """
    if trained.vote != "adaptive":
        raise ValueError(f"a mean cost is of the adaptive vote, not of the {trained.vote} vote")
    cost = adaptive_cost(trained.net, trained.info.image_size)
    arrays = read_npz(trained.run.predictions_file(vote_of_epoch(trained.vote), "val"), "logits", "labels", "whole")
    fitted = fit_adaptive(arrays["whole"], arrays["logits"], arrays["labels"], cost, mean_gmacs)
    return replace(trained, fitted=fitted)


def load_dataset(trained: TrainedNetwork, words: Sequence[str], output_dir: Path) -> "FERDataModule":
    """The data set that a run trained on, divided as it was.

    Args:
        words: `dataset.key=value` that overwrite what the run recorded, e.g. where the data set lies now.
        output_dir: has the packs.

    Raises ValueError if a word is not such a value, if the recorded configuration names other code than our data sets,
    or if the data set is not the one that the run was trained on.
    """
    from fer_voting.data.module import reopen_datamodule

    recorded_node = {**trained.config["dataset"], "cache_dir": str(output_dir / "packs")}
    for word in words:
        key, equals, _ = word.partition("=")
        if not equals or not key.startswith("dataset.") or key.split(".")[1] not in recorded_node:
            known = ", ".join(f"dataset.{name}" for name in recorded_node if name != "_target_")
            raise ValueError(f"{word!r} must be KEY=VALUE with a key of the run's data set: {known}")
    try:
        merged = OmegaConf.merge({"dataset": recorded_node}, OmegaConf.from_dotlist(list(words)))
    except OmegaConfBaseException as error:
        raise ValueError(f"{' '.join(words)}: {error}") from error
    node: Any = OmegaConf.to_container(merged.dataset)
    datamodule = reopen_datamodule(node, trained.run.dir / "config.yaml", refit=bool(trained.result.get("refit")))
    datamodule.setup()
    if tuple(datamodule.class_names) != trained.info.class_names or datamodule.size != trained.info.image_size:
        raise ValueError(
            f"{datamodule.name} has {', '.join(datamodule.class_names)} at {datamodule.size} pixels here, the network "
            f"{', '.join(trained.info.class_names)} at {trained.info.image_size}"
        )
    if datamodule.fingerprint != (recorded := trained.result["data_fingerprint"]):
        raise ValueError(
            f"{datamodule.name} is not what the run was trained on: its fingerprint is {datamodule.fingerprint[:12]}… "
            f"here, and was {recorded[:12]}…"
        )
    return datamodule
