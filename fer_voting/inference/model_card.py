"""The model card of a shared network: README.md, written from what its run recorded, by `model_card.md.j2`."""

import html
import re
from collections.abc import Collection, Mapping, Sequence
from pathlib import Path
from typing import Any

import jinja2
from markupsafe import Markup

from fer_voting.models.checkpoint import NetworkInfo
from fer_voting.networks import Network
from fer_voting.system.atomic import read_json
from fer_voting.votes import find_vote

PARTS = {"train": "training", "val": "validation", "test": "test"}
RATERS_LABELS = {"votes": "each image's most frequent vote", "majority": "the class of more than half of the votes"}
"""By `dataset.targets` of a data set with several raters."""
BIAS_ONLY = "the last layer's bias; all others are the initial weights"


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
    forms: Mapping[str, Any] | None = None,
) -> str:
    """The card as Markdown with the Hub's metadata on top.

    Args:
        name: the folder's or the Hub's, for the examples.
        info: of the network.
        vote: by which the network decides.
        result: of the run (`result.json`).
        config: of the run (`config.yaml`), resolved.
        evaluations: what `python -m fer_voting.evaluate` wrote about this network under this split.
        resolutions: rows of `make resolution` about this network, split and vote.
        temperature: divisor of the vote's scores, if they are logits.
        public_test: figures of `python -m experiments.public_test` about this network, split and vote.
        forms: figures of the same command with `--forms`, about this network.
    """
    own, counts, versions = info.options, result["counts"], result.get("versions", {})
    is_papers = info.architecture == "resnet18"
    measured = [each for each in evaluations if "accuracy" in each.get("votes", {}).get(vote, {})]
    votes = result["votes"]
    return (
        _environment()
        .get_template("model_card.md.j2")
        .render(
            name=name,
            info=info,
            vote=vote,
            epoch_vote=find_vote(vote).epoch_vote,
            result=result,
            network="a ResNet-18" if is_papers else own.get("name") or info.architecture,
            stage=own.get("crop_after") or f"{'module' if is_papers else 'stage'} {info.split[1:]}",
            options=", ".join(f"{key} {value}" for key, value in own.items() if value is not None),
            counts={part: counts[part] for part in PARTS if part in counts},
            protocol=_protocol(info, result, config),
            votes=votes,
            evaluated=[part for part in ("val", "test") if any(part in metrics for metrics in votes.values())],
            evaluations=measured,
            calibrations=[each for each in measured if "calibration" in each["votes"][vote]],
            temperature=temperature,
            resolutions=resolutions,
            public_test=public_test,
            forms=forms,
            packages=", ".join(
                f"{package} {versions[package]}" for package in ("python", "torch", "lightning") if package in versions
            ),
        )
    )


def run_card(network: Network, name: str, checksums: Collection[str]) -> str:
    """The card of a run's network under the name `name`, with what was measured of its weights.

    Args:
        checksums: of its weights, as trained and as rounded.
    """
    run, info, vote = network.run, network.info, network.vote.name
    assert run is not None
    result, output_dir = run.result() or {}, run.dir.parent.parent

    def of_this(measured: Mapping[str, Any], *keys: str) -> bool:
        own = {"split": info.split, "vote": vote}
        return measured.get("checksum") in checksums and all(measured.get(key) == own[key] for key in keys)

    evaluations = [each for each in _stored(output_dir / "evaluations") if of_this(each, "split")]
    rows = [row for table in _stored(output_dir / "tables", "resolution.json") for row in table]
    resolutions = [row for row in rows if of_this(row, "split", "vote")]
    tests = [figures for file in _stored(output_dir / "public_test") for figures in file]
    public_test = next((each for each in tests if of_this(each, "split", "vote")), None)
    forms = next((each for each in tests if "forms" in each and of_this(each)), None)
    return model_card(
        name, info, vote, result, run.config(), evaluations, resolutions, network.vote.temperature, public_test, forms
    )


def _stored(folder: Path, pattern: str = "*.json") -> list[Any]:
    return [read_json(path) for path in sorted(folder.glob(pattern))]


def public_test_tables(figures: Mapping[str, Any]) -> str:
    """Tables of `python -m experiments.public_test` as Markdown: labels, recall, confusion, brightness, resolution.

    Args:
        figures: `vote`; `class_names`; `by_label` and `by_majority` (None without FER+'s votes): `images`, `accuracy`,
            `low`, `high`, `mean_recall`, `recall` by class, `confusion_counts`; `calibration_error`; `brightness`:
            `darkest`, `brightest`, `images`, `accuracy`, `low`, `high` of each quarter; `resolution`: `resolution`,
            and by label and majority (None) `accuracy`.
    """
    return _environment().get_template("public_test.md.j2").render(figures=figures)


def forms_table(forms: Mapping[str, Any]) -> str:
    """The table of `python -m experiments.public_test --forms` as Markdown.

    Args:
        forms: `images`; `forms`: `form`, `precision`, `by_label`, `by_majority` (None without FER+'s votes),
            `milliseconds` and `time` (share of the first row's) of each.
    """
    return _environment().get_template("forms.md.j2").render(forms=forms)


def _protocol(info: NetworkInfo, result: Mapping[str, Any], config: Mapping[str, Any]) -> dict[str, Any]:
    nodes = ("dataset", "optimizer", "augment", "callbacks", "scheduler", "loss", "mix")
    dataset, optimizer, augment, callbacks, scheduler, loss, mix = (config.get(name) or {} for name in nodes)
    steps = [key.replace("_", " ") for key, value in augment.items() if isinstance(value, Mapping)]
    selection = (
        "trained on training and validation images for as many epochs as validation had found best, then tested once"
        if result.get("refit")
        else "after each epoch the network was evaluated on the validation images, and each vote's best epoch was kept"
    )
    protocol = {
        "Epochs": result["epochs"],
        "Selection": selection,
        "Batch": dataset.get("batch_size"),
        "Loss": _call(loss) if loss else None,
        "Teacher": _without_folders(config["teacher"]) if config.get("teacher") else None,
        "Optimizer": str(optimizer.get("_target_", "")).rpartition(".")[2],
        "Learning rate": f"{optimizer.get('lr')}, {_call(scheduler) or 'constant'}",
        "Weight decay": optimizer.get("weight_decay") or "none",
        "Targets": _targets(dataset),
        "Labels of validation and test": RATERS_LABELS.get(str(dataset.get("targets"))),
        "Trained parameters": BIAS_ONLY if callbacks.get("last_bias") else None,
        "Averaged weights": _average(callbacks.get("average")),
        "Balancing (images a class and epoch)": (dataset.get("balance") or {}).get("target", "none"),
        "Augmentation": ", ".join(steps) or "none",
        "Mixed images": _call(mix) if mix else None,
        "Precision": result.get("precision"),
        "Initial weights": _without_folders(config.get("init_from") or "random"),
        "Seed": result["seed"],
    }
    return {key: value for key, value in protocol.items() if value is not None}


def _without_folders(source: str) -> str:
    """Where weights came from, without the folders of the machine: a run, with its checkpoint where one was named."""
    path = Path(source)
    run = path.parent.parent.name if path.parent.name == "checkpoints" else ""
    return f"{run}, {path.name}" if run else path.name


def _call(node: Mapping[str, Any]) -> str:
    """The name and the values of what a node of a configuration calls."""
    values = [
        f"{key} {f'({_call(value)})' if isinstance(value, Mapping) else value}"
        for key, value in node.items()
        if not key.startswith("_")
    ]
    return ", ".join([str(node.get("_target_", "")).rpartition(".")[2].replace("_", " "), *values])


def _average(node: Any) -> str:
    """The callback that averages the weights (conf/callbacks/ema.yaml), with its values."""
    if not isinstance(node, Mapping):
        return "none"
    function = node.get("multi_avg_fn")
    return _call(function if isinstance(function, Mapping) else node)  # a callback of the user's own has another


def _targets(dataset: Mapping[str, Any]) -> str:
    targets = "shares of the annotators' votes" if dataset.get("targets") == "votes" else "one label an image"
    share = dataset.get("label_share")
    return f"{targets}; {share:.0%} of each is FER2013's own label" if share else targets


def _environment() -> jinja2.Environment:
    """Templates in which every value is escaped for Markdown: names of classes and data sets are a user's."""
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(Path(__file__).parent),
        autoescape=True,  # what is Markup already stays as it is; `finalize` makes it of everything else
        finalize=lambda value: value if isinstance(value, Markup) else Markup(_escape(str(value))),
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
    )
    environment.filters |= {
        "code": lambda text: Markup(re.sub(r"[^\w./:@ -]", "?", str(text))),  # for a code span or block
        "number": lambda value: "unknown" if value is None else f"{value:,}",
        "digits": lambda value: "unknown" if value is None else f"{value:.3g}",
        "part_name": PARTS.__getitem__,
        "percent": lambda share: "–" if share is None else f"{100 * share:.2f}",
        "vote_name": lambda vote: f"{'softmax' if vote == 'softprob' else vote} vote",
    }
    return environment


def _escape(text: str) -> str:
    """Text that Markdown and HTML show as it is, in one line."""
    line = re.sub(r"\s+", " ", text)
    return re.sub(r"([\\`*_\[\]|#~$])", r"\\\1", html.escape(line, quote=False))
