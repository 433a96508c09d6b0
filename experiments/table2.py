"""Table 2 of the paper, measured: `python -m experiments.table2`, or `make table2`.

Needs no training and no data: one forward pass in training mode per row. At the paper's batch of 135 the largest row,
crops before the network, keeps 9.5 GB; all rows take two minutes on two CPU cores.

Expect memory within 0.01 MiB of the paper's and the multiply-accumulates to the digit; on CUDA, where the allocator
rounds, memory within 1 %. The paper prints both as "MB" and "GFLOPs"; `fer_voting.models.cost` says what they are.
"""

import argparse
import gc
import json
from pathlib import Path
from typing import Any

import torch

from experiments.pages import update_pages
from fer_voting.models import VotingResNet18
from fer_voting.models.cost import count_gmacs, count_parameters, forward_mib_per_image
from fer_voting.system.atomic import write_atomically
from fer_voting.system.environment import git_commit
from fer_voting.system.messages import progress_bar

PAPER = Path(__file__).with_name("paper.json")
NUM_CLASSES = 7

Row = dict[str, Any]


def measure(architecture: str, input_size: int, batch_size: int, device: str) -> Row:
    """One row: the network at the paper's full width on `batch_size` images of `input_size` pixels a side."""
    net = VotingResNet18(architecture, NUM_CLASSES).to(device)
    images = torch.randn(batch_size, 3, input_size, input_size, device=device)
    return {
        "architecture": architecture,
        "input_size": input_size,
        "forward_mib_per_image": forward_mib_per_image(net, images),
        "gmacs": count_gmacs(net, input_size),
        "parameters": count_parameters(net),
        "device": torch.cuda.get_device_name() if device == "cuda" else "cpu",
        "batch_size": batch_size,
    }


def table2(batch_size: int, device: str) -> list[Row]:
    """Every row of the paper's table, measured, with the paper's own values (None where it gives none)."""
    rows = []
    paper_rows = json.loads(PAPER.read_text())["table2"]
    progress = progress_bar(paper_rows, desc="Table 2", unit="row")
    for paper in progress:
        progress.set_postfix_str(f"{paper['architecture']} at {paper['input_size']}")
        row = measure(paper["architecture"], paper["input_size"], batch_size, device)
        rows.append(row | {"paper_forward_mib": paper["forward_pass_mb"], "paper_gmacs": paper["gflops"]})
        gc.collect()  # else the next row's gigabytes add to what is still held
    return rows


def markdown(rows: list[Row]) -> str:
    """The rows as a Markdown table, the paper's values next to ours."""
    lines = [
        "| crops after | input | MiB an image | paper | GMACs | paper | parameters |",
        "|---|---:|---:|---:|---:|---:|---:|",
    ]
    for row in rows:
        paper_gmacs = "–" if row["paper_gmacs"] is None else f"{row['paper_gmacs']:.2f}"
        lines.append(
            f"| {row['architecture']} | {row['input_size']}x{row['input_size']} "
            f"| {row['forward_mib_per_image']:.2f} | {row['paper_forward_mib']:.2f} "
            f"| {row['gmacs']:.2f} | {paper_gmacs} | {row['parameters']:,} |"
        )
    return "\n".join(lines) + "\n"


def main(arguments: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description="Table 2 of the paper, measured.")
    parser.add_argument("--batch-size", type=int, default=135, help="images a pass (default: 135, the paper's)")
    parser.add_argument("--device", choices=["cpu", "cuda"], default="cuda" if torch.cuda.is_available() else "cpu")
    parser.add_argument("--output-dir", type=Path, default=Path("outputs/tables"))
    options = parser.parse_args(arguments)
    if options.batch_size < 2:
        parser.error(f"--batch-size (={options.batch_size}) must be at least 2")
    if options.device == "cuda" and not torch.cuda.is_available():
        parser.error("--device cuda: this machine has no GPU that torch can use")

    rows = table2(options.batch_size, options.device)
    text = markdown(rows)
    origin = f"Measured by `make table2`: batch {options.batch_size}, {rows[0]['device']}, commit {git_commit()}."
    page = f"{text}\n{origin}\n"
    for name, content in {"table2.json": json.dumps(rows, indent=2) + "\n", "table2.md": page}.items():
        with write_atomically(options.output_dir / name) as file:
            file.write(content)
    update_pages(options.output_dir / "table2.md")
    print(f"Forward memory and arithmetic of one image, batch {options.batch_size}, {rows[0]['device']}\n\n{text}")
    print(f"Written to {options.output_dir / 'table2.json'} and {options.output_dir / 'table2.md'}")


if __name__ == "__main__":
    main()
