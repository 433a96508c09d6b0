"""A W&B workspace for each data set that compares the variants. `make dashboard`.

Accuracy by split and vote, memory against accuracy, curves by split, confusion matrices, and a table of the runs. The
workspaces are always written, as JSON; where W&B has a login, they are also saved there, in the project of the runs.
Run again, it updates what it saved.
"""

import itertools
import os
from pathlib import Path
from typing import Any

import wandb
from pydantic import TypeAdapter

from experiments.common import add_choice_of_runs, make_parser
from fer_voting.config import explain
from fer_voting.results.load import TITLES
from fer_voting.system.atomic import read_json, write_json
from fer_voting.training.loggers import CONFUSION_CHART, CONFUSION_FIELDS, PARTS, require
from fer_voting.votes import VOTES

# W&B keeps a run's `config.split.name` at `split.value.name`.
SPLIT, SEED, DATASET = "split.value.name", "seed.value", "dataset.value.name"
VARIANT, ROW, REFIT = "composition.value.variant", "composition.value.row", "refit.value"
BY_ROW: dict[str, Any] = {"groupby": ROW, "groupby_aggfunc": "mean", "groupby_rangefunc": "stddev"}
"""A line or a bar of a chart: the mean over the seeds of a split, of runs with the same recipe."""
MEMORY = "forward_mib_per_image"


def workspace(entity: str, project: str, dataset: str, variant: str) -> Any:
    """The `Workspace` of the runs of one data set under one variant, refits left out."""
    import wandb_workspaces.reports.v2 as wr
    import wandb_workspaces.workspaces as ws

    measured = list(itertools.product(PARTS, VOTES))
    accuracy = [
        wr.BarPlot(title=f"Accuracy, {part}, {vote} vote", metrics=[f"best/{part}/{vote}/accuracy"], **BY_ROW)
        for part, vote in measured
    ]
    memory = [
        wr.ScatterPlot(
            title=f"Accuracy ({part}, soft vote) by memory (MiB an image)",
            x=wr.SummaryMetric(MEMORY),
            y=wr.SummaryMetric(f"best/{part}/soft/accuracy"),
        )
        for part in PARTS
    ]
    titles = {"Training loss": "train/loss", "Validation loss": "val/loss"}
    titles |= {f"Validation accuracy, {vote} vote": f"val/{vote}/accuracy" for vote in VOTES}
    curves = [wr.LinePlot(title=title, x="epoch", y=[metric], **BY_ROW) for title, metric in titles.items()]
    confusion = [
        wr.CustomChart(
            query={"summaryTable": {"tableKey": f"best/{part}/{vote}/confusion_matrix_table"}},
            chart_name=CONFUSION_CHART,
            chart_fields=CONFUSION_FIELDS,
            chart_strings={"title": f"Confusion, {part}, {vote} vote"},
        )
        for part, vote in measured
    ]
    summaries = [*(f"best/{part}/{vote}/accuracy" for part, vote in measured), MEMORY, "gmacs", "images_per_second"]
    columns = [f"config:{SPLIT}", f"config:{SEED}", *(f"summary:{name}" for name in summaries)]
    sections: dict[str, list[Any]] = {
        "Accuracy by split and vote": accuracy,
        "Memory against accuracy": memory,
        "Curves by split": curves,
        "Confusion matrices": confusion,
        "Runs": [wr.RunComparer(diff_only="split")],
    }
    title = TITLES.get(dataset, dataset)
    return ws.Workspace(
        entity=entity,
        project=project,
        name=f"Splits and votes, {title}{f', variant {variant}' if variant else ''}",
        sections=[ws.Section(name=name, panels=panels, is_open=True) for name, panels in sections.items()],
        runset_settings=ws.RunsetSettings(
            filters=ws.And(
                ws.Config(DATASET) == dataset,
                ws.Config(VARIANT) == variant,
                ws.Config(REFIT) == False,  # noqa: E712  # an expression, not a comparison
            ),
            pinned_columns=columns,
        ),
    )


def specification(made: Any) -> dict[str, Any]:
    """The values of a `Workspace` as JSON."""
    return TypeAdapter(type(made)).dump_python(made, mode="json", exclude_none=True)


def save(made: Any, url: str | None) -> str:
    """Save a workspace in W&B, over the one at `url` where that is still there; returns its address."""
    import wandb_workspaces.workspaces as ws

    if url is not None:
        try:
            known = ws.Workspace.from_url(url)
        except ValueError:  # removed since
            pass
        else:
            known.name, known.sections, known.runset_settings = made.name, made.sections, made.runset_settings
            made = known
    return made.save().url


def entity_of_login(timeout_seconds: int) -> str:
    """The login's own entity. Raises ValueError if there is no login, wandb.Error if the server does not answer."""
    if os.environ.get("WANDB_MODE", "online") != "online":
        raise ValueError("WANDB_MODE is not online")
    if not wandb.login(prompt=False, verify=False):
        raise ValueError("there is no login (`wandb login`, or WANDB_API_KEY)")
    entity = wandb.Api(timeout=timeout_seconds).default_entity
    if entity is None:
        raise ValueError("the login has no default entity: name one by --entity")
    return entity


def main(arguments: list[str] | None = None) -> None:
    parser = make_parser(__doc__)
    parser.add_argument("--project", default="fer_voting", help="W&B's project of the runs (default: fer_voting)")
    parser.add_argument("--entity", help="W&B's user or team (default: the login's own)")
    add_choice_of_runs(parser)
    parser.add_argument("--out", type=Path, default=Path("outputs/dashboard.json"), help="(default: %(default)s)")
    parser.add_argument("--timeout-seconds", type=int, default=30, help="of W&B's server (default: %(default)s)")
    options = parser.parse_args(arguments)
    try:
        require("the dashboard", "dashboard", "wandb_workspaces")
    except ValueError as error:
        parser.error(str(error))

    wandb.setup(wandb.Settings(silent=True))
    entity, problem = options.entity, ""
    try:
        entity = entity or entity_of_login(options.timeout_seconds)
    except (ValueError, wandb.Error) as error:
        problem = explain(error)
    known = {one["name"]: one["url"] for one in read_json(options.out)} if options.out.exists() else {}
    written = []
    for dataset in options.datasets:
        made = workspace(entity or "", options.project, dataset, options.variant)
        url = known.get(made.name)
        if not problem:
            try:
                url = save(made, url)
                print(f"saved: {url}")
            except (ValueError, wandb.Error) as error:
                problem = explain(error)
        written.append({"name": made.name, "url": url, "specification": specification(made)})
    write_json(options.out, written)
    print(f"written: {options.out}")
    if problem:
        print(f"not saved in W&B: {problem}")


if __name__ == "__main__":
    main()
