"""docs/extending.md, followed to the letter: its own parts lie in a folder `mine`, where its commands run.

What needs a checkout is applied to a copy of the repository, which is on Python's path as an installed package is.
"""

import csv
import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import PIL.Image
import pytest
import yaml
from helpers.doc_pages import Block, blocks, lines_in_blocks, parse
from helpers.train import REPO

from fer_voting.data.labels import CLASSES

PAGE = REPO / "docs/extending.md"


def apply(root: Path, block: Block) -> None:
    """Write the file that a block is, or make the changes that it shows."""
    path = root / block.caption
    if block.language != "diff":
        assert not path.exists(), f"{block.caption} is there already"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(block.text)
        return
    for place in block.text.split("@@\n"):
        lines = place.splitlines(keepends=True)
        before = "".join(line[1:] for line in lines if line[0] in " -")
        after = "".join(line[1:] for line in lines if line[0] in " +")
        text = path.read_text()
        assert text.count(before) == 1, f"{block.caption} does not hold once:\n{before}"
        path.write_text(text.replace(before, after))


def write_listed_images(root: Path) -> None:
    """A data set as the page's example reads it: grey levels tell two classes apart; of the others there are few."""
    rows = []
    few = [name for name in CLASSES[:7] if name not in ("happy", "sad")]
    for number in range(60 + 2 * len(few)):
        label, level = (("Happiness", 200), ("sad", 50))[number % 2] if number < 60 else (few[number % len(few)], 125)
        noise = np.random.default_rng(number).integers(-20, 20, (24, 24, 3))
        image = PIL.Image.fromarray((level + noise).astype(np.uint8))
        (root / "images").mkdir(parents=True, exist_ok=True)
        image.save(root / "images" / f"{number}.png")
        rows.append({"file": f"images/{number}.png", "label": label, "part": "test" if number < 10 else "train"})
    with (root / "labels.csv").open("w", newline="") as file:
        table = csv.DictWriter(file, ["file", "label", "part"])
        table.writeheader()
        table.writerows(rows)


def write_named_images(root: Path) -> None:
    """Two people's recordings of five frames, as the page's example names them, and a cough."""
    for person in ("p07", "p08"):
        for number, word in enumerate(("smile", "frown", "rest", "cough")):
            for frame in range(5):
                pixels = np.random.default_rng((number, frame)).integers(0, 256, (24, 24, 3), np.uint8)
                (root / person).mkdir(parents=True, exist_ok=True)
                PIL.Image.fromarray(pixels).save(root / person / f"{1 + number % 3}_{word}_{frame:04d}.png")


@pytest.mark.slow
def test_what_the_page_adds_trains_and_shows_in_its_table(tmp_path: Path):
    checkout, typed_in = tmp_path / "checkout", tmp_path / "elsewhere"
    for folder in ("fer_voting", "conf", "experiments"):
        shutil.copytree(REPO / folder, checkout / folder, ignore=shutil.ignore_patterns("__pycache__", "recorded"))
    shutil.copy(REPO / "README.md", checkout)
    for block in blocks(PAGE):
        if block.caption:
            apply(typed_in if block.caption.startswith("mine/") else checkout, block)
    write_listed_images(tmp_path / "listed")

    write_named_images(tmp_path / "lab")

    photo = tmp_path / "photo.png"
    pixels = np.zeros((60, 80, 3), np.uint8)
    pixels[28:33, 48:53] = 255
    PIL.Image.fromarray(pixels).save(photo)
    audit, predict, train, table = (
        parse(PAGE.name, re.sub(r"\bDIR\b", str(tmp_path / folder), line).replace("PHOTO", str(photo)))
        for folder, line in zip(("lab", *["listed"] * 3), lines_in_blocks(PAGE), strict=True)
    )
    assert [command.words[2] for command in (audit, predict, train, table)] == [
        "fer_voting.audit", "fer_voting.predict", "fer_voting.train", "experiments.recalls",
    ]  # fmt: skip
    assert table.environment == (("FER_VOTING_CONFIG_DIR", "mine/conf"),)
    # One interpreter for all: each takes seconds to start. `--config-dir` of the training holds for the table.
    script = f"""
import sys
import experiments.recalls, fer_voting.predict, fer_voting.train
from fer_voting.config import command
fer_voting.predict.main({predict.words[3:]!r})
sys.argv = ["fer_voting.audit", *{audit.words[3:]!r}]
command("fer_voting.audit:job", "audit")
sys.argv = ["fer_voting.train", *{train.words[3:]!r}]
fer_voting.train.main()
experiments.recalls.main({table.words[3:]!r})
from fer_voting.data.labels import CLASSES
from fer_voting.networks import load_network
trained = load_network("listed-m4-quick-seed0")
net, info = trained.net, trained.info
print(info.architecture, dict(info.options), net.crop_after, type(net.backbone).__name__)
"""
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": str(checkout)}
    done = subprocess.run([sys.executable, "-c", script], cwd=typed_in, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-3000:]

    (face,) = csv.DictReader(done.stdout.splitlines()[:2])
    assert [float(face[side]) for side in ("left", "top", "width", "height")] == [38, 18, 24, 24]
    assert face["status"] == "ok"

    audited = json.loads((typed_in / "outputs/audit/lab/audit.json").read_text())
    assert audited["parts"] == {"train": {"happy": 6, "anger": 6}}
    assert audited["left_out"] == {"session 3": 10, "label cough": 10, "other frames": 8}

    folder = typed_in / "outputs/runs/listed-m4-quick-seed0"
    result = json.loads((folder / "result.json").read_text())
    assert (result["status"], result["dataset"], result["split"]) == ("finished", "listed", "m4")
    assert {name: count for name, count in result["counts"]["test"].items() if count} == {"happy": 5, "sad": 5}
    assert set(result["votes"]) == {"soft", "softprob", "hard", "confidence", "median", "weighted", "adaptive"}
    assert (folder / "checkpoints/best-median.ckpt").is_file()
    config = yaml.safe_load((folder / "config.yaml").read_text())
    assert config["loss"] == {"_target_": "mine.poly.PolyLoss", "epsilon": 1.0}
    assert config["callbacks"]["stop"]["patience"] == 5
    rows = list(csv.DictReader((folder / "csv/metrics.csv").read_text().splitlines()))
    assert float(rows[-1]["best/val/median/accuracy"]) == result["votes"]["median"]["val"]["accuracy"]
    recalls = result["votes"]["soft"]["val"]["recall"]
    (row,) = [line for line in done.stdout.splitlines() if line.startswith("| m4 ")]
    assert "shufflenet {'crop_after': None} stage3 ShuffleNetV2" in done.stdout
    expected = [f"{100 * recall:.2f}" for recall in recalls.values() if recall is not None]  # of the classes there
    assert [cell.strip() for cell in row.split("|")[2:-1]] == expected
