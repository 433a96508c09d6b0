"""A W&B workspace for each data set that compares the variants. `make dashboard`.

Accuracy by split and vote, memory against accuracy, curves by split, confusion matrices, and a table of the runs. The
workspaces are always written, as JSON; where W&B has a login, they are also saved there, in the project of the runs.
Run again, it updates what it saved.
"""

import argparse
import json
import os
import re
from pathlib import Path
from typing import Any

import wandb

from fer_voting.files import read_json, write_json
from fer_voting.loggers import CONFUSION_CHART, CONFUSION_FIELDS, STAGES, require
from fer_voting.tables.load import TITLES
from fer_voting.voting import VOTES

SPLIT = "split.name"
MEMORY = "forward_mib_per_image"


def workspace(entity: str, project: str, dataset: str, setting: str) -> Any:
    """The `Workspace` of the runs of one data set under one setting, refits left out.

    Runs are grouped by split in the charts: a line or a bar is the mean over the seeds.
    """
    import wandb_workspaces.reports.v2 as wr
    import wandb_workspaces.workspaces as ws

    split = wr.Config(SPLIT)
    accuracy = [
        wr.BarPlot(
            title=f"Accuracy, {stage}, {vote} vote",
            metrics=[f"best/{stage}/{vote}/accuracy"],
            groupby=split,
            groupby_aggfunc="mean",
            groupby_rangefunc="stddev",
        )
        for stage in STAGES
        for vote in VOTES
    ]
    memory = [
        wr.ScatterPlot(
            title=f"Accuracy ({stage}, soft vote) by memory (MiB an image)",
            x=wr.SummaryMetric(MEMORY),
            y=wr.SummaryMetric(f"best/{stage}/soft/accuracy"),
        )
        for stage in STAGES
    ]
    curves = [
        wr.LinePlot(title=title, x="epoch", y=[metric], groupby=split, groupby_aggfunc="mean", groupby_rangefunc="stddev")
        for title, metric in {
            "Training loss": "train/loss",
            "Validation loss": "val/loss",
            **{f"Validation accuracy, {vote} vote": f"val/{vote}/accuracy" for vote in VOTES},
        }.items()
    ]
    confusion = [
        wr.CustomChart(
            query={"summaryTable": {"tableKey": f"best/{stage}/{vote}/confusion_matrix_table"}},
            chart_name=CONFUSION_CHART,
            chart_fields=CONFUSION_FIELDS,
            chart_strings={"title": f"Confusion, {stage}, {vote} vote"},
        )
        for stage in STAGES
        for vote in VOTES
    ]
    figures = [f"best/{stage}/{vote}/accuracy" for stage in STAGES for vote in VOTES]
    columns = [
        f"config:{SPLIT.replace('.', '.value.', 1)}",
        "config:seed.value",
        *(f"summary:{name}" for name in (*figures, MEMORY, "gmacs", "images_per_second")),
    ]
    sections = {
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
        name=f"Splits and votes, {title}{f', setting {setting}' if setting else ''}",
        sections=[ws.Section(name=name, panels=panels, is_open=True) for name, panels in sections.items()],
        runset_settings=ws.RunsetSettings(
            filters=[
                ws.expr.Config("dataset.name") == dataset,
                ws.expr.Config("setting") == setting,
                ws.expr.Config("refit") == False,  # noqa: E712  # an expression, not a comparison
            ],
            pinned_columns=columns,
        ),
    )
