"""Table 2 of the paper, measured: `python -m experiments.table2`, or `make table2`; and the same table of any other
network: `make table2 MODEL="model=timm model.name=convnext_atto dataset.size=96"`.

Needs no training and no data: one forward pass in training mode per row. At the paper's batch of 135 the largest row,
crops before the network, keeps 9.5 GB; all rows take two minutes on two CPU cores.

Expect memory within 0.01 MiB of the paper's and the multiply-accumulates to the digit; on CUDA, where the allocator
rounds, memory within 1 %. The paper prints both as "MB" and "GFLOPs"; `fer_voting.models.cost` says what they are.
The multiply-accumulates by torch's own counter stand beside them, without the operations of BatchNorm.
"""

import argparse
import gc
import json
from pathlib import Path
from typing import Any

import torch

from experiments.pages import update_pages
from fer_voting.config import CONF_DIR, compose, explain
from fer_voting.models import VotingNetwork, VotingResNet18
from fer_voting.models.cost import count_gmacs, count_parameters, count_torch_gmacs, forward_mib_per_image
from fer_voting.models.registry import build_network
from fer_voting.runs.identity import resolve
from fer_voting.runs.naming import name_word
from fer_voting.system.atomic import write_atomically
from fer_voting.system.environment import git_commit
from fer_voting.system.messages import progress_bar

PAPER = Path(__file__).with_name("paper.json")
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
    paper_rows = json.loads(PAPER.read_text())["table2"]
    progress = progress_bar(paper_rows, desc="Table 2", unit="row")
    for paper in progress:
        split, size = paper["architecture"], paper["input_size"]
        progress.set_postfix_str(f"{split} at {size}")
        row = measure(VotingResNet18(split, NUM_CLASSES), split, size, batch_size, device)
        rows.append(row | {"paper_forward_mib": paper["forward_pass_mb"], "paper_gmacs": paper["gflops"]})
        gc.collect()  # else the next row's gigabytes add to what is still held
    return rows


def table_of(words: list[str], batch_size: int, device: str) -> tuple[list[Row], list[str]]:
    """A row for each split of another network, and why the splits that are left out do not work.

    Args:
        words: of a training's command line, e.g. `["model=timm", "model.name=convnext_atto", "dataset.size=96"]`.

    Raises ValueError if not even the baseline can be built.
    """
    config = resolve(compose(words))
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


def markdown(rows: list[Row]) -> str:
    """The rows as a Markdown table, the paper's values next to ours where it has the network."""
    papers = "paper_gmacs" in rows[0]
    titles = ["crops after", "input", "MiB an image", "paper", "GMACs", "paper", "by torch", "parameters"]
    table = []
    for row in rows:
        paper_gmacs = row.get("paper_gmacs")
        cells = [
            row["architecture"],
            f"{row['input_size']}x{row['input_size']}",
            f"{row['forward_mib_per_image']:.2f}",
            f"{row['paper_forward_mib']:.2f}" if papers else "",
            f"{row['gmacs']:.{2 if papers else 3}f}",
            "–" if paper_gmacs is None else f"{paper_gmacs:.2f}",
            f"{row['torch_gmacs']:.{2 if papers else 3}f}",
            f"{row['parameters']:,}",
        ]
        table.append(cells)
    kept = [column for column, title in enumerate(titles) if papers or title != "paper"]
    lines = ["| " + " | ".join(cells[column] for column in kept) + " |" for cells in (titles, *table)]
    return "\n".join([lines[0], "|---" + "|---:" * (len(kept) - 1) + "|", *lines[1:]]) + "\n"


def main(arguments: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description="Table 2 of the paper, measured.")
    parser.add_argument("--batch-size", type=int, default=135, help="images a pass (default: 135, the paper's)")
    parser.add_argument("--model", help="another network, as words of the training: model=timm model.name=NAME")
    parser.add_argument("--device", choices=["cpu", "cuda"], default="cuda" if torch.cuda.is_available() else "cpu")
    parser.add_argument("--output-dir", type=Path, default=Path("outputs/tables"))
    options = parser.parse_args(arguments)
    if options.batch_size < 2:
        parser.error(f"--batch-size (={options.batch_size}) must be at least 2")
    if options.device == "cuda" and not torch.cuda.is_available():
        parser.error("--device cuda: this machine has no GPU that torch can use")

    if options.model:
        try:
            rows, left_out = table_of(options.model.split(), options.batch_size, options.device)
        except Exception as error:  # Hydra's, of words that do not compose
            parser.error(f"--model {options.model}: {explain(error)}")
        name, command = f"table2-{name_word(options.model)}", f'make table2 MODEL="{options.model}"'
    else:
        rows, left_out = table2(options.batch_size, options.device), []
        name, command = "table2", "make table2"
    text = "".join([markdown(rows), *(f"\nNot possible with {reason}.\n" for reason in left_out)])
    origin = f"Measured by `{command}`: batch {options.batch_size}, {rows[0]['device']}, commit {git_commit()}."
    page = f"{text}\n{origin}\n"
    for suffix, content in {"json": json.dumps(rows, indent=2) + "\n", "md": page}.items():
        with write_atomically(options.output_dir / f"{name}.{suffix}") as file:
            file.write(content)
    update_pages(options.output_dir / f"{name}.md")
    print(f"Forward memory and arithmetic of one image, batch {options.batch_size}, {rows[0]['device']}\n\n{text}")
    print(f"Written to {options.output_dir / name}.json and {options.output_dir / name}.md")


if __name__ == "__main__":
    main()
