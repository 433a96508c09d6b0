"""Table 2 of the paper, measured: `python -m experiments.table2`, or `make table2`; and the same table of any other
network: `make table2 MODEL="model=timm model.name=convnext_atto dataset.size=96"`.

Needs no training and no data: one forward pass in training mode per row. At the paper's batch of 135 the largest row,
crops before the network, keeps 9.5 GB; all rows take two minutes on two CPU cores.

Expect memory within 0.01 MiB of the paper's (which prints 70 for crops of the input, ten times its 7.00) and the
multiply-accumulates to the digit; on CUDA, where the allocator rounds, memory within 1 %. The paper prints both as "MB"
and "GFLOPs"; `fer_voting.models.cost` says what they are. The multiply-accumulates by torch's own counter stand beside
them, without the operations of BatchNorm.
"""

import gc
from pathlib import Path
from typing import Any

import torch

from experiments.common import Report, make_parser, publish
from fer_voting.config import CONF_DIR, compose, explain
from fer_voting.models import VotingNetwork, VotingResNet18
from fer_voting.models.cost import count_gmacs, count_parameters, count_torch_gmacs, forward_mib_per_image
from fer_voting.models.registry import build_network
from fer_voting.results.paper import paper
from fer_voting.results.table import Table
from fer_voting.results.text import two_digits
from fer_voting.runs.identity import resolve
from fer_voting.runs.naming import name_word
from fer_voting.system.environment import git_commit
from fer_voting.system.messages import progress_bar

NUM_CLASSES = 7

Row = dict[str, Any]


def measure(net: VotingNetwork, split: str, input_size: int, batch_size: int, device: str) -> Row:
    """One row: the network on `batch_size` images of `input_size` pixels a side."""
    net = net.to(device)
    images = torch.randn(batch_size, 3, input_size, input_size, device=device)
    return {
        "architecture": split,
        "input_size": input_size,
        "forward_mib_per_image": forward_mib_per_image(net, images),
        "gmacs": count_gmacs(net, input_size),
        "torch_gmacs": count_torch_gmacs(net, input_size),
        "parameters": count_parameters(net),
        "device": torch.cuda.get_device_name() if device == "cuda" else "cpu",
        "batch_size": batch_size,
    }


def table2(batch_size: int, device: str) -> list[Row]:
    """Every row of the paper's table, measured at its full width, with its own values (None where it gives none)."""
    rows = []
    paper_rows = paper()["table2"]
    progress = progress_bar(paper_rows, desc="Table 2", unit="row")
    for row in progress:
        split, size = row["architecture"], row["input_size"]
        progress.set_postfix_str(f"{split} at {size}")
        measured = measure(VotingResNet18(split, NUM_CLASSES), split, size, batch_size, device)
        rows.append(measured | {"paper_forward_mib": row["forward_pass_mb"], "paper_gmacs": row["gflops"]})
        gc.collect()  # else the next row's gigabytes add to what is still held
    return rows


def other_network(overrides: list[str], batch_size: int, device: str) -> tuple[list[Row], list[str]]:
    """A row for each split of another network, and why the splits that are left out do not work.

    Args:
        overrides: of a training, e.g. `["model=timm", "model.name=convnext_atto", "dataset.size=96"]`.

    Raises ValueError if not even the baseline can be built.
    """
    config = resolve(compose(overrides))
    size = config["dataset"]["size"]
    rows, left_out = [], []
    splits = sorted((path.stem for path in (CONF_DIR / "split").glob("*.yaml")), key=lambda s: (s != "baseline", s))
    for split in progress_bar(splits, desc="costs", unit="split"):
        try:
            net = build_network(config["model"], split, NUM_CLASSES, size)
        except ValueError as error:
            if split == "baseline":
                raise
            left_out.append(f"{split}: {error}")
            continue
        rows.append(measure(net, split, size, batch_size, device))
        gc.collect()
    return rows, left_out


def table_of_rows(rows: list[Row]) -> Table:
    """The paper's values stand beside those measured here, if it has the network."""
    in_paper = "paper_gmacs" in rows[0]
    digits = 2 if in_paper else 3
    table = Table(["crops after", "input", "MiB an image", "GMACs", "by torch", "parameters"], [])
    for row in rows:
        size, mib = f"{row['input_size']}x{row['input_size']}", f"{row['forward_mib_per_image']:.2f}"
        gmacs = [f"{row[key]:.{digits}f}" for key in ("gmacs", "torch_gmacs")]
        table.rows.append([row["architecture"], size, mib, *gmacs, f"{row['parameters']:,}"])
    if in_paper:
        for position, key in ((4, "paper_gmacs"), (3, "paper_forward_mib")):
            table.header.insert(position, "paper")
            for cells, row in zip(table.rows, rows, strict=True):
                cells.insert(position, two_digits(row[key]))
    return table


def main(arguments: list[str] | None = None) -> None:
    parser = make_parser("Table 2 of the paper, measured.")
    parser.add_argument("--batch-size", type=int, default=135, help="images a pass (default: 135, the paper's)")
    parser.add_argument("--model", help="another network, by a training's overrides: model=timm model.name=NAME")
    parser.add_argument("--device", choices=["cpu", "cuda"], default="cuda" if torch.cuda.is_available() else "cpu")
    parser.add_argument("--output-dir", type=Path, default=Path("outputs/tables"))
    options = parser.parse_args(arguments)
    if options.batch_size < 2:
        parser.error(f"--batch-size (={options.batch_size}) must be at least 2")
    if options.device == "cuda" and not torch.cuda.is_available():
        parser.error("--device cuda: this machine has no GPU that torch can use")

    name, command = "table2", "make table2"
    if options.model:
        try:
            rows, left_out = other_network(options.model.split(), options.batch_size, options.device)
        except Exception as error:  # Hydra's, for overrides that do not compose
            parser.error(f"--model {options.model}: {explain(error)}")
        name, command = f"table2-{name_word(options.model)}", f'make table2 MODEL="{options.model}"'
    else:
        rows, left_out = table2(options.batch_size, options.device), []
    report = Report(name, "Forward memory and arithmetic of one image", rows=rows)
    report.add_table(table_of_rows(rows))
    for reason in left_out:
        report.add(f"Not possible with {reason}.")
    report.add(f"Measured by `{command}`: batch {options.batch_size}, {rows[0]['device']}, commit {git_commit()}.")
    publish(report, options.output_dir)


if __name__ == "__main__":
    main()
