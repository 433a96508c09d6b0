"""Evaluate a trained network on a data set: `python -m fer_voting.evaluate checkpoint=RUN dataset=... [stage=test]`.

The network's classes are matched with the data set's by name. Writes into the folder `out=`: every vote's metrics
(JSON), the predictions of each vote (CSV), and unless `plots=false` a confusion matrix of the soft vote, a reliability
diagram, and the adaptive vote's accuracy against its arithmetic (PNG). `robustness=true` adds the accuracies on images
of lower resolution, compressed, blurred, with noise, in other light, and with eyes or mouth covered.
"""

if __name__ == "__main__":  # compose first, import afterwards: `--help` and a misspelt key are answered at once
    from fer_voting.config import command

    command("fer_voting.evaluate:job", "evaluate")
    raise SystemExit

import logging
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import lightning as L
import torch
from omegaconf import DictConfig

from fer_voting.config import make
from fer_voting.data.corruptions import CORRUPTIONS, Corrupted
from fer_voting.data.module import FERDataModule
from fer_voting.experiment import make_evaluator, use_float32_precision
from fer_voting.models.adaptive import adaptive_cost, has_cut
from fer_voting.models.checkpoint import NetworkInfo
from fer_voting.networks import load_network, match_classes
from fer_voting.results.evaluation import (
    adaptive_text,
    evaluate_predictions,
    evaluation_tables,
    interval_note,
    write_predictions,
)
from fer_voting.results.load import PARTS
from fer_voting.results.numbers import evaluate_numbers, evaluation_table, number_columns
from fer_voting.results.plots import plot_evaluation, save
from fer_voting.results.robustness import RobustnessRow, robustness_figure, robustness_row, robustness_table
from fer_voting.results.table import Table, write_tables
from fer_voting.runs.lineage import Lineage, overlap_lines
from fer_voting.runs.run import Run
from fer_voting.system.arrays import read_npz
from fer_voting.system.atomic import read_json, write_json
from fer_voting.system.environment import describe_device, git_commit, keep_to_usable_cores, package_versions
from fer_voting.system.messages import progress_bar
from fer_voting.system.text import counted
from fer_voting.targets import target_of
from fer_voting.training.evaluation import predict_part
from fer_voting.training.module import VotingModule, evaluation_module
from fer_voting.training.options import refuse_trainer_options
from fer_voting.training.predictions import PartPredictions
from fer_voting.votes import AdaptiveCost, CropOutputs, Vote, adaptive_curve, known_votes, soft_vote

log = logging.getLogger(__name__)


def evaluate(config: DictConfig) -> tuple[Path, dict[str, Any]]:
    """Evaluate what a configuration describes; returns the JSON file's path and its content.

    Images have the size at which the network was trained; `dataset.size` may only repeat it.

    Raises ValueError if an option is unknown, the size is not the checkpoint's, the network lacks a class of the data
    set, votes would be fitted on images that it was trained on, or the file holds an evaluation of other weights or of
    other data; FileNotFoundError if there is no such checkpoint.
    """
    part, commit = config.stage, git_commit()  # now: the checkout may change before the end
    _check_options(config)
    if config.checkpoint is None:
        raise ValueError("checkpoint is not set: give a run's name or a .ckpt file, checkpoint=...")
    network = load_network(config.checkpoint, config.output_dir)
    assert network.path is not None
    path, run, info = network.path, network.run, network.info
    if config.dataset.size not in (None, info.image_size):
        raise ValueError(
            f"dataset.size={config.dataset.size} must be {info.image_size}, the size at which {path} was trained; "
            "leave it out"
        )
    split = config.split.name if config.get("split") else info.split
    use_float32_precision(tf32=False)  # as a training's default
    keep_to_usable_cores()
    refuse_trainer_options(config.trainer)
    evaluator = make_evaluator(config.trainer)  # before the data: an unknown accelerator fails here
    if evaluator.world_size > 1:
        raise ValueError("a checkpoint is evaluated on one device: trainer=auto, or trainer.devices=1")
    target = target_of(info.class_names, info.number_names)
    if target is not None:
        _refuse_options_of_classes(config, info)
    needs = (part, *(["val"] * (config.temperature == "val")))
    data = make(config.dataset, size=info.image_size, needs=needs, target=target)
    data.setup()
    if part not in data.counts():
        raise ValueError(f"{data.name} has no {part} images here; stage=val evaluates on the others")
    name = _name(path) + ("" if split == info.split else f"-as-{split}")
    out = Path(config.out) / f"{name}-on-{data.name}-{part}.json"
    previous = _previous(out, network.checksum, data.fingerprint)
    # Half an hour's accuracies on worse images are not lost to an evaluation without them.
    robustness = previous.get("robustness")
    origin = {
        "git_commit": commit,
        "precision": str(evaluator.precision),
        "temperature_option": config.temperature,
        "mean_gmacs": config.mean_gmacs,
        "limit_batches": str(getattr(evaluator, f"limit_{part}_batches")),  # 1 is one batch, 1.0 all
    }
    other = [f"{key} {previous.get(key)}" for key, value in origin.items() if previous.get(key) != value]
    if robustness and other and not config.robustness:
        raise ValueError(
            f"{out} has accuracies on worse images, of {', '.join(other)}: choose another folder by out=..., or "
            "measure them again by robustness=true"
        )
    matched, left_out = match_classes(network, data.class_names, data.name, split)
    module = evaluation_module(matched)
    cost = _cost(module, config.mean_gmacs)
    lineage = Lineage.of_network(run, _name(path))
    if config.temperature == "val":
        _refuse_to_fit_on_trained_images(lineage, data)
    fitting_run = run if split == info.split else None
    fitted = _fitted_votes(evaluator, module, data, cost, config, path, fitting_run)
    recorded = None if fitting_run is None else fitting_run.result()
    fitted_on = (recorded or {}).get("data", {}).get("digests", {}).get("val")
    own_val = data.data_summary()["digests"].get("val")  # equal where only the training part differs, e.g. its targets
    fitted_on_val = bool(fitted) and (config.temperature == "val" or fitted_on == own_val)
    predictions = predict_part(evaluator, module, data, part)
    outputs, labels, positions = predictions.outputs, predictions.labels, predictions.positions.numpy()
    deciding = {
        name: fitted.get(name, vote)
        for name, vote in known_votes().items()
        if (name in fitted or not (vote.needs or vote.needs_full_map)) and data.target.takes(vote)
    }
    overlap = lineage.overlap({part: data.pack.hashes[positions]})
    adaptive = (
        None if cost is None or target is not None else adaptive_curve(outputs, labels, cost, fitted.get("adaptive"))
    )
    class_names = module.info.class_names
    of_classes = outputs.split(len(class_names))[0] if info.number_names else outputs
    groups = data.groups_of(positions)
    votes, arrays = {}, {}
    for name, vote in deciding.items():
        scores = data.target.scores(vote, outputs, data.class_names)
        votes[name] = data.target.judge(scores, labels, data.class_names)
        arrays[name] = of_vote = data.target.to_arrays(outputs, scores, labels, data.class_names)
        if class_names:
            known = name in fitted
            votes[name] |= evaluate_predictions(of_classes, of_vote["labels"], class_names, vote, known, groups)
        if info.number_names:
            number_arrays = of_vote["number_scores"], of_vote["number_labels"]
            votes[name] |= evaluate_numbers(*number_arrays, data.target.numbers, groups)
    if config.robustness:
        robustness = _robustness(evaluator, module, data, part, deciding, predictions)
    result = {
        "checkpoint": str(path.absolute()),
        "checksum": network.checksum,
        "trained_on": info.dataset,
        "trained_split": info.split,
        "split": split,
        "image_size": info.image_size,
        "dataset": data.name,
        "synthetic": data.synthetic,
        "part": part,
        "class_names": list(class_names),
        "number_names": list(info.number_names),
        "classes_left_out": left_out,
        "images": len(predictions.labels),
        "images_trained_on": overlap,
        "in_sample": _mostly(overlap["images"][part], len(labels)),
        "fitted_on_these_images": part == "val" and fitted_on_val,
        "data_fingerprint": data.fingerprint,
        "votes": votes,
        "votes_left_out": [vote for vote in known_votes() if vote not in votes],
        "adaptive": adaptive,
        "robustness": robustness,
        "versions": package_versions(),
        **origin,
        "device": describe_device(evaluator.strategy.root_device),
    }
    names = data.pack.names(positions)
    for name, vote in deciding.items():
        rows = out.with_name(f"{out.stem}-{name}.csv")
        of_vote = arrays[name]
        numbers = number_columns(of_vote, info.number_names)
        write_predictions(rows, names, of_vote.get("labels"), of_classes, class_names, vote, numbers)
    if config.plots:
        plot_evaluation(out, name, result, arrays["soft"] if info.number_names else None)
        if result["robustness"]:
            title = f"{name} on {data.name}, {part}{' (synthetic faces)' if data.synthetic else ''}"
            save(robustness_figure(result["robustness"], title), out.with_name(f"{out.stem}-robustness.png"))
    write_json(out, result)
    write_tables(out.with_name(f"{out.stem}-table"), result_tables(result)[0].items())
    return out, result


def result_tables(result: Mapping[str, Any]) -> tuple[dict[str, Table], str]:
    """The tables of an evaluation by title, and a note about them."""
    tables, note = (
        evaluation_tables(result["votes"]) if result["class_names"] else ({}, interval_note(result["votes"]["soft"]))
    )
    if result["number_names"]:
        tables[f"metrics of {' and '.join(result['number_names'])}"] = evaluation_table(result["votes"])
    if result["robustness"]:
        tables["accuracy on worse images (%)"] = robustness_table(result["robustness"])
    return tables, note


def _refuse_options_of_classes(config: DictConfig, info: NetworkInfo) -> None:
    """Raises ValueError for options that mean nothing for a network with numbers."""
    numbers = " and ".join(info.number_names)
    if config.robustness:
        raise ValueError(f"robustness=true measures the accuracy of classes, and the network predicts {numbers}")
    if config.mean_gmacs is not None:
        raise ValueError(f"mean_gmacs={config.mean_gmacs} is for the adaptive vote, and the network predicts {numbers}")
    if config.temperature != "auto" and not info.class_names:
        raise ValueError(f"temperature={config.temperature} is of probabilities, and the network predicts {numbers}")


def _robustness(
    evaluator: L.Trainer,
    module: VotingModule,
    data: FERDataModule,
    part: str,
    votes: Mapping[str, Vote],
    predictions: PartPredictions,
) -> list[RobustnessRow]:
    """The accuracies on the part's images, as they are (their `predictions`) and with each corruption and strength."""
    labels, groups = predictions.labels.numpy(), data.groups_of(predictions.positions.numpy())
    about = labels, len(data.class_names), votes, groups
    rows = [robustness_row(None, None, predictions.outputs, *about)]
    conditions = [Corrupted(name, strength) for name, one in CORRUPTIONS.items() for strength in one.strengths]
    for change in progress_bar(conditions, desc="robustness", unit="pass"):
        outputs = predict_part(evaluator, module, data, part, change).outputs
        rows.append(robustness_row(change.name, change.strength, outputs, *about))
    return rows


def _cost(module: VotingModule, mean_gmacs: float | None) -> AdaptiveCost | None:
    """The costs of the network's parts, with the mean that the adaptive vote may cost; None if it takes no crops.

    Raises ValueError if `mean_gmacs` is given and the network takes no crops, or the full map costs more.
    """
    if has_cut(module.net):
        cost = adaptive_cost(module.net, module.info.image_size, mean_gmacs)
        if mean_gmacs is not None:
            cost.share(mean_gmacs)  # refuses what is too little before the data are evaluated
        return cost
    if mean_gmacs is not None:
        raise ValueError(
            f"mean_gmacs={mean_gmacs} is for the adaptive vote, and split {module.info.split} has nothing to adapt"
        )
    return None


def _fitted_votes(
    evaluator: L.Trainer,
    module: VotingModule,
    data: FERDataModule,
    cost: AdaptiveCost | None,
    config: DictConfig,
    path: Path,
    run: Run | None,
) -> dict[str, Vote]:
    """The votes that are fitted on validation images, by name: those of the data set, or those of the run.

    Args:
        path: the checkpoint.
        run: whose votes were fitted for this split, if the checkpoint is in its folder.
    """
    fitted: dict[str, Vote] = {}
    if config.temperature == "val":
        predicted = predict_part(evaluator, module, data, "val")
        outputs, labels = predicted.outputs, predicted.labels
        if data.target.numbers:
            classes = len(data.class_names)
            outputs, labels = outputs.split(classes)[0], labels[:, :classes].argmax(dim=1)
        fitted = fit_votes(outputs, labels, cost)
    elif run is not None and module.info.class_names:
        fitted = _votes_of_run(run, path.stem.removeprefix("best-"), cost)
    if config.temperature not in ("auto", "val"):
        fitted["soft"] = replace(soft_vote, temperature=float(config.temperature))
    return fitted


def _votes_of_run(run: Run, epoch_vote: str, cost: AdaptiveCost | None) -> dict[str, Vote]:
    """The fitted votes that use a run's checkpoint `best-<epoch_vote>`: as its result.json has them; others, and the
    adaptive vote of a wished cost, by the outputs that it kept of its validation images.

    Raises ValueError if these cannot be read.
    """
    values = (run.result() or {}).get("votes", {})
    recorded = {
        name: vote.from_values(values[name])
        for name, vote in known_votes().items()
        if "temperature" in values.get(name, {}) and not vote.is_probability and vote.epoch_vote == epoch_vote
        if not (vote.needs_full_map and cost and cost.limit)
    }
    try:
        arrays = read_npz(run.predictions_file(epoch_vote, "val"), "logits", "labels")
    except FileNotFoundError:
        return recorded
    kept = {key: torch.from_numpy(arrays[key]) for key in ("logits", "whole", "labels") if key in arrays}
    return fit_votes(CropOutputs(kept["logits"], kept.get("whole")), kept["labels"], cost) | recorded


def fit_votes(outputs: CropOutputs, labels: torch.Tensor, cost: AdaptiveCost | None) -> dict[str, Vote]:
    """The votes that need parameters or have a temperature, fitted on the outputs of N validation images.

    Args:
        labels: class ids [N].
        cost: of the network's parts, if it has a cut.
    """
    return {
        name: vote.fit(outputs, labels, cost)
        for name, vote in known_votes().items()
        if (vote.needs or not vote.is_probability)
        and not (vote.needs_full_map and (not outputs.has_full_map or cost is None))
    }


def _refuse_to_fit_on_trained_images(lineage: Lineage, data: FERDataModule) -> None:
    """Raises ValueError if most of the validation images are among those that the network comes from, as a refit's are.

    A few may be: a data set can have one picture several times.
    """
    hashes = data.pack.hashes[data.positions("val")]
    overlap = lineage.overlap({"val": hashes})
    if _mostly(overlap["images"]["val"], len(hashes)):
        raise ValueError(
            f"temperature=val would fit on images that the network knows: of {len(hashes):,}, "
            f"{overlap_lines(overlap)[0]}; leave it out, or give a number"
        )


def _mostly(images: int, of: int) -> bool:
    return 2 * images > of


def _check_options(config: DictConfig) -> None:
    if config.stage not in PARTS:
        raise ValueError(f"stage={config.stage} must be {' or '.join(PARTS)}")
    option, mean_gmacs = config.temperature, config.mean_gmacs
    if option not in ("auto", "val") and not (type(option) in (int, float) and 0 < option < float("inf")):
        raise ValueError(f"temperature={option} must be auto, val, or a number greater than 0")
    if not (mean_gmacs is None or (type(mean_gmacs) in (int, float) and mean_gmacs > 0)):
        raise ValueError(f"mean_gmacs={mean_gmacs} must be a number greater than 0")
    for key in ("robustness", "plots"):
        if not isinstance(config[key], bool):
            raise ValueError(f"{key}={config[key]} must be true or false")


def _name(path: Path) -> str:
    """Name of an evaluation's files: the run's, with the checkpoint's if that is not the soft vote's best."""
    if path.parent.name != "checkpoints":
        return path.parent.name if path.suffix == ".safetensors" else path.stem
    run = path.absolute().parent.parent.name
    return run if path.stem == "best-soft" else f"{run}-{path.stem}"


def _previous(out: Path, checksum: str, fingerprint: str) -> Mapping[str, Any]:
    """The evaluation that `out` holds, {} if none. Raises ValueError if it is of other weights or on other data."""
    if not out.exists():
        return {}
    previous = read_json(out)
    for key, of_other, ours in (
        ("checksum", "of other weights", checksum),
        ("data_fingerprint", "on other data", fingerprint),
    ):
        if previous.get(key) != ours:
            raise ValueError(
                f"{out} is an evaluation {of_other} ({previous.get(key)}, not {ours}): choose another folder by "
                "out=..., or remove it"
            )
    return previous


def job(config: DictConfig) -> None:
    out, result = evaluate(config)
    print(
        f"{counted(result['images'], result['part'] + ' image')} of {result['dataset']}, "
        f"trained on {result['trained_on']}"
    )
    if result["split"] != result["trained_split"]:
        print(f"split {result['split']}, trained with {result['trained_split']}")
    for vote, metrics in result["votes"].items():
        shares = {"accuracy": "accuracy", "mean recall": "mean_recall"}
        figures = {name: f"{metrics[key]:.2%}" for name, key in shares.items() if key in metrics}
        figures |= {f"CCC of {name}": f"{value:.3f}" for name, value in metrics.get("ccc", {}).items()}
        print(f"{vote:>10} vote: {', '.join(f'{name} {text}' for name, text in figures.items())}")
    tables, note = result_tables(result)
    for title, table in tables.items():
        print(f"\n{title[0].upper()}{title[1:]}:\n\n{table.markdown()}", end="")
    print(f"\n{note}\n")
    if result["in_sample"]:
        print("In-sample: accuracy and calibration error on images of the training say nothing about others.\n")
    if result["fitted_on_these_images"]:
        print("Temperatures, and the weighted and the adaptive vote, were fitted on these very images.\n")
    if result["adaptive"]:
        print(f"{adaptive_text(result['adaptive'])}\n")
    if result["votes_left_out"] and not result["number_names"]:
        print(
            f"Votes left out: {', '.join(result['votes_left_out'])}. The adaptive vote needs a split with crops; what "
            "it and the weighted vote take from validation images comes from the checkpoint's run, or temperature=val."
        )
    if result["classes_left_out"]:
        print(f"Left out, because {result['dataset']} lacks them: {', '.join(result['classes_left_out'])}.")
    for line in overlap_lines(result["images_trained_on"]):
        print(f"{line[0].upper()}{line[1:]}.")
    log.info("written to %s; the other files of this evaluation are in the same folder", out)
