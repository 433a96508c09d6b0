"""The model card of a shared network: README.md, written from what its run recorded."""

import html
import json
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from fer_voting.inference.public_test import public_test_tables
from fer_voting.models.checkpoint import NetworkInfo
from fer_voting.networks import Network
from fer_voting.system.atomic import read_json
from fer_voting.votes import find_vote

PARTS = {"train": "training", "val": "validation", "test": "test"}
VOTES = {
    "soft": "soft vote",
    "softprob": "softmax vote",
    "hard": "hard vote",
    "confidence": "confidence vote",
    "weighted": "weighted vote",
    "adaptive": "adaptive vote",
}
SPLITS = {
    "baseline": "takes no crops: one decision of the whole image",
    "input": "cuts the input image into ten overlapping crops, classifies each, and lets them vote",
}

USE = """\
## Use

```
python -m fer_voting.predict PHOTO --model {name}
```

```python
from fer_voting import Recognizer

recognizer = Recognizer.from_pretrained("{name}")
recognizer(face).classes  # face: uint8 [H, W, 3], RGB
```

`model.safetensors` holds the weights (read by safetensors: no code), `config.json` what builds the network.
"""

INTENDED = """\
## Intended use

Research on recognising facial expressions in small images, and comparisons with other networks on the same data. The
network says which of its classes the annotators of its training data would most likely have chosen for a face.

It is not meant for decisions about people: hiring, policing, border control, insurance, credit, education, medical
diagnosis, or the surveillance of people who did not agree to it. In the European Union, inferring emotions at the
workplace and in schools is prohibited (Regulation (EU) 2024/1689, article 5), and other uses are high-risk.
"""

LIMITS = """\
## Limits

- The figures below are for images like those of the training data. Other cameras, poses, light, ages, or groups of
  people may give much lower ones; they were not measured here unless a table says so.
- No figures by age, gender or ethnicity are known: the data set carries no such labels. Expect differences.
- Classes are uneven, and the annotators of such data sets disagree often: a label is an opinion, not a measurement.
- A probability is the network's, and is only as good as its calibration.
- A face must have been found first; what the detector misses never gets here.
"""

ETHICS = """\
## On inferring emotion from faces

An expression is not an emotion. People move their faces for many reasons, feel without showing it, and show what they
do not feel; how the two relate differs between situations, people and cultures (Barrett et al. 2019,
doi:10.1177/1529100619832930). What this network returns describes the look of a face in one image, and supports no
statement about what a person feels, thinks or intends. Tell people when it is used on them, and let them refuse.
"""


def model_card(
    name: str,
    info: NetworkInfo,
    vote: str,
    result: Mapping[str, Any],
    config: Mapping[str, Any],
    evaluations: Sequence[Mapping[str, Any]] = (),
    resolutions: Sequence[Mapping[str, Any]] = (),
    temperature: float = 1.0,
    public_test: Mapping[str, Any] | None = None,
) -> str:
    """The card as Markdown with the Hub's metadata on top.

    Args:
        name: the folder's or the Hub's, for the examples.
        info: of the network.
        vote: by which the weights were chosen.
        result: of the run (`result.json`).
        config: of the run (`config.yaml`), resolved.
        evaluations: what `python -m fer_voting.evaluate` wrote about this network under this split.
        resolutions: rows of `make resolution` about this network, split and vote.
        temperature: divisor of the vote's scores, if they are logits.
        public_test: figures of `python -m experiments.public_test` about this network, split and vote.
    """
    return "\n".join(
        filter(
            None,
            [
                _front_matter(info, result),
                _description(name, info, vote, result),
                USE.format(name=_code(name)),
                INTENDED,
                LIMITS,
                ETHICS,
                _data(info, result),
                _protocol(info, result, config),
                _results(vote, result),
                _elsewhere(vote, evaluations),
                _calibration(vote, evaluations, temperature),
                _resolution(vote, resolutions),
                _public_test(vote, public_test),
                _origin(result),
            ],
        )
    )


def run_card(network: Network, name: str) -> str:
    """The card of a run's network under the name `name`, with what was measured of its weights."""
    run, info, vote = network.run, network.info, network.vote.name
    assert run is not None
    result, output_dir = run.result() or {}, run.dir.parent.parent
    checkpoint = run.best_checkpoint(network.vote.epoch_vote)
    evaluations = [
        evaluation
        for evaluation in _stored(output_dir / "evaluations")
        if Path(evaluation["checkpoint"]).parts[-3:] == checkpoint.parts[-3:] and evaluation["split"] == info.split
    ]
    resolutions = []
    # `make resolution` measures one checkpoint under every vote.
    if vote == ("soft" if "soft" in result["votes"] else next(iter(result["votes"]))):
        key = (run.name, info.split, vote)
        rows = [row for table in _stored(output_dir / "tables", "resolution.json") for row in table]
        resolutions = [row for row in rows if (row["run"], row["split"], row["vote"]) == key]
    key = (network.checksum, info.split, vote)
    tests = [figures for file in _stored(output_dir / "public_test") for figures in file]
    public_test = next((each for each in tests if (each["checksum"], each["split"], each["vote"]) == key), None)
    return model_card(
        name, info, vote, result, run.config(), evaluations, resolutions, network.vote.temperature, public_test
    )


def _stored(folder: Path, pattern: str = "*.json") -> list[Any]:
    return [read_json(path) for path in sorted(folder.glob(pattern))]


def _front_matter(info: NetworkInfo, result: Mapping[str, Any]) -> str:
    tags = ["facial-expression-recognition", *(["synthetic-data"] if result.get("synthetic") else [])]
    lines = [
        "---",
        "library_name: fer_voting",
        "pipeline_tag: image-classification",
        f"tags: {json.dumps(tags)}",  # JSON is YAML
        "---",
        "",
    ]
    return "\n".join(lines)


def _description(name: str, info: NetworkInfo, vote: str, result: Mapping[str, Any]) -> str:
    papers = info.architecture == "resnet18"
    crop_after = info.options.get("crop_after")
    stage = (
        f"{'module' if papers else 'stage'} {_text(info.split[1:])}" if crop_after is None else _text(str(crop_after))
    )
    what = SPLITS.get(
        info.split,
        f"cuts its feature map after {stage} into ten overlapping crops, classifies each, and lets them vote",
    )
    network = "a ResNet-18" if papers else _text(str(info.options.get("name") or info.architecture))
    options = ", ".join(f"{key} {value}" for key, value in info.options.items() if value is not None)
    size = f"{info.image_size}x{info.image_size} pixels"
    weights = (
        "of the last epoch of a refit"
        if result.get("refit")
        else f"of the epoch with the best {VOTES[find_vote(vote).epoch_vote]} on validation images"
    )
    other_split = result["split"] != info.split
    trained_as = [f"- Trained with the split {_text(result['split'])}; the figures are of that"] if other_split else []
    lines = [
        f"# {_text(name)}",
        "",
        f"A facial expression network: {network} for faces of {size} that {what} "
        "(the voting residual network of Gómez-Sirvent, López de la Rosa, López and Fernández-Caballero, *Electronics* "
        "2023, 12, 3837).",
        "",
        f"- Classes: {', '.join(map(_text, info.class_names))}",
        f"- Input: RGB faces of {size}, resized by antialiased bilinear interpolation",
        f"- Weights: {weights}",
        *trained_as,
        f"- {_text(info.architecture)}{f' ({_text(options)})' if options else ''}, "
        f"{_number(result.get('parameters'))} parameters, {_digits(result.get('gmacs'))} GMACs a face",
        "",
    ]
    if result.get("synthetic"):
        lines += ["**Trained on drawn faces: its figures say nothing about people.**", ""]
    return "\n".join(lines)


def _data(info: NetworkInfo, result: Mapping[str, Any]) -> str:
    counts = {part: result["counts"][part] for part in PARTS if part in result["counts"]}
    rows = [
        [_text(label), *(f"{of_part.get(label, 0):,}" for of_part in counts.values())] for label in info.class_names
    ]
    rows.append(["all", *(f"{sum(of_part.values()):,}" for of_part in counts.values())])
    head = ["class", *(f"{PARTS[part]} images" for part in counts)]
    fingerprint = result.get("data_fingerprint", "")
    note = f"Fingerprint of images, labels and division: `{_code(fingerprint)}`.\n" if fingerprint else ""
    terms = (
        "The terms under which the data set is given also bind what is trained on it; the MIT licence of fer_voting's "
        "code does not cover the weights."
    )
    if info.dataset in ("fer2013", "ferplus"):
        terms += (
            " The rights in FER2013's photos, which were collected from the web, are not cleared: use it for research."
        )
    return f"## Data\n\nTrained on `{_code(info.dataset)}`. {terms}\n\n{_table(head, rows)}\n{note}"


def _schedule(config: Mapping[str, Any]) -> str:
    """The scheduler's name and values; of configurations that had no such group, the factor of each epoch."""
    scheduler = config.get("scheduler")
    if scheduler is None:
        return f"times {config.get('dataset', {}).get('schedule', {}).get('lr_gamma_per_epoch')} an epoch"
    return _call(scheduler)


def _call(node: Mapping[str, Any]) -> str:
    """The name and the values of what a node of a configuration calls."""
    values = [f"{key} {value}" for key, value in node.items() if not key.startswith("_")]
    return ", ".join([str(node.get("_target_", "")).rpartition(".")[2].replace("_", " "), *values])


def _average(config: Mapping[str, Any]) -> str:
    """The callback that averages the weights (conf/callbacks/ema.yaml), with its values."""
    node = config.get("callbacks", {}).get("average")
    if not isinstance(node, Mapping):
        return "none"
    function = node.get("multi_avg_fn")
    return _call(function if isinstance(function, Mapping) else node)  # a callback of the user's own has another


def _targets(dataset: Mapping[str, Any]) -> str:
    targets = "shares of the annotators' votes" if dataset.get("targets") == "votes" else "one label an image"
    share = dataset.get("label_share")
    return f"{targets}; {share:.0%} of each is FER2013's own label" if share else targets


def _protocol(info: NetworkInfo, result: Mapping[str, Any], config: Mapping[str, Any]) -> str:
    dataset, optimizer = config.get("dataset", {}), config.get("optimizer", {})
    augment = [key for key, value in config.get("augment", {}).items() if isinstance(value, Mapping)]
    selection = (
        "trained on training and validation images for as many epochs as validation had found best, then tested once"
        if result.get("refit")
        else "after each epoch the network was evaluated on the validation images, and each vote's best epoch was kept"
    )
    values = {
        "Epochs": result["epochs"],
        "Selection": selection,
        "Batch": dataset.get("batch_size"),
        "Optimizer": str(optimizer.get("_target_", "")).rpartition(".")[2],
        "Learning rate": f"{optimizer.get('lr')}, {_schedule(config)}",
        "Weight decay": optimizer.get("weight_decay") or "none",
        "Targets": _targets(dataset),
        "Averaged weights": _average(config),
        "Balancing (images a class and epoch)": dataset.get("balance", {}).get("target"),
        "Augmentation": ", ".join(key.replace("_", " ") for key in augment) or "none",
        "Precision": result.get("precision"),
        "Initial weights": config.get("init_from") or "random",
        "Seed": result["seed"],
    }
    lines = "\n".join(f"- {key}: {_text(str(value))}" for key, value in values.items())
    return f"## Protocol\n\n{lines}\n"


def _results(vote: str, result: Mapping[str, Any]) -> str:
    votes = {name: found for name, found in result["votes"].items() if name in VOTES}
    parts = [part for part in ("val", "test") if any(part in found for found in votes.values())]
    head = ["vote", *(f"{PARTS[part]} {what} (%)" for part in parts for what in ("accuracy", "mean recall"))]
    rows = [
        [
            VOTES[name],
            *(_percent(found.get(part, {}).get(key)) for part in parts for key in ("accuracy", "mean_recall")),
        ]
        for name, found in votes.items()
    ]
    epoch_vote = find_vote(vote).epoch_vote
    note = (
        "Each vote by the network of its own best epoch; this folder holds that of the "
        f"{VOTES[epoch_vote]}{'' if vote == epoch_vote else f', by which the {VOTES[vote]} decides'}."
    )
    if "weighted" in votes:
        note += " The weighted and the adaptive vote were fitted on the validation images: optimistic figures there."
    text = f"## Results\n\n{note}\n\n{_table(head, rows)}"
    chosen = votes[vote]
    parts = [part for part in parts if part in chosen]
    if parts:
        recalls = [
            [_text(name), *(_percent(chosen[part]["recall"][name]) for part in parts)]
            for name in chosen[parts[0]]["recall"]
        ]
        head = ["class", *(f"{PARTS[part]} recall (%)" for part in parts)]
        text += f"\nPer-class recall, {VOTES[vote]}:\n\n{_table(head, recalls)}"
    return text


def _elsewhere(vote: str, evaluations: Sequence[Mapping[str, Any]]) -> str:
    rows = [
        [
            _text(found["dataset"]),
            PARTS[found["part"]],
            f"{found['images']:,}",
            _percent(found["votes"][vote]["accuracy"]),
            _percent(found["votes"][vote]["mean_recall"]),
        ]
        for found in evaluations
        if vote in found.get("votes", {})
    ]
    if not rows:
        return ""
    head = ["data set", "part", "images", "accuracy (%)", "mean recall (%)"]
    return f"## Evaluations ({VOTES[vote]})\n\n{_table(head, rows, left=2)}"


def _calibration(vote: str, evaluations: Sequence[Mapping[str, Any]], temperature: float) -> str:
    rows = []
    for found in evaluations:
        metrics = found.get("votes", {}).get(vote, {})
        if "calibration" in metrics:
            calibrated = metrics.get("calibrated") or {}
            rows.append(
                [
                    _text(found["dataset"]),
                    PARTS[found["part"]],
                    _percent(metrics["calibration"]["error"]),
                    _percent(calibrated.get("error")),
                ]
            )
    note = (
        f"Temperature of the {VOTES[vote]}, fitted on validation images: {temperature:.3g}.\n"
        if temperature != 1
        else ""
    )
    if not rows:
        return f"## Calibration\n\n{note or 'Not measured; no temperature was fitted.' + chr(10)}"
    head = ["data set", "part", "expected calibration error (%)", "with the temperature (%)"]
    return f"## Calibration ({VOTES[vote]})\n\n{_table(head, rows, left=2)}\n{note}"


def _resolution(vote: str, rows: Sequence[Mapping[str, Any]]) -> str:
    if not rows:
        return ""
    cells = [
        [
            _text(row["dataset"]),
            PARTS[row["part"]],
            f"{row['images']:,}",
            str(row["resolution"]),
            f"{_percent(row['accuracy'])} ({_percent(row['low'])} to {_percent(row['high'])})",
            _percent(row["mean_recall"]),
        ]
        for row in sorted(rows, key=lambda row: row["resolution"])
    ]
    head = ["data set", "part", "images", "resolution (px)", "accuracy (%)", "mean recall (%)"]
    note = "Images brought down to the resolution and back; 95 % intervals are over the images."
    return f"## Resolution ({VOTES[vote]})\n\n{note}\n\n{_table(head, cells, left=2)}"


def _public_test(vote: str, figures: Mapping[str, Any] | None) -> str:
    if figures is None:
        return ""
    return f"## FER2013's PublicTest ({VOTES[vote]})\n\n{public_test_tables(figures)}"


def _origin(result: Mapping[str, Any]) -> str:
    versions = result.get("versions", {})
    packages = ", ".join(f"{name} {versions[name]}" for name in ("python", "torch", "lightning") if name in versions)
    lines = [
        f"- Run: `{_code(str(result['name']))}`, started {_text(str(result['started']))}",
        f"- Code: commit {_text(str(result.get('git_commit') or 'unknown'))}; {_text(packages)}",
        f"- Device: {_text(str(result.get('device')))}",
    ]
    return "## Origin\n\n" + "\n".join(lines) + "\n"


def _table(head: list[str], rows: list[list[str]], left: int = 1) -> str:
    ruler = ["---" if i < left else "---:" for i in range(len(head))]
    return "\n".join("| " + " | ".join(cells) + " |" for cells in (head, ruler, *rows)) + "\n"


def _text(text: str) -> str:
    """Text that Markdown and HTML show as it is: names of classes and data sets are a user's."""
    line = re.sub(r"\s+", " ", text)
    return re.sub(r"([\\`*_\[\]|#~$])", r"\\\1", html.escape(line, quote=False))


def _code(text: str) -> str:
    """Text for a code span or block."""
    return re.sub(r"[^\w./:@ -]", "?", text)


def _percent(share: float | None) -> str:
    return "–" if share is None else f"{100 * share:.2f}"


def _number(value: float | None) -> str:
    return "unknown" if value is None else f"{value:,}"


def _digits(value: float | None) -> str:
    return "unknown" if value is None else f"{value:.3g}"
