"""The command; the packs themselves are tested in test_data_pack.py, the command line in test_audit.py."""

import re
from pathlib import Path
from typing import Any

import pytest
from helpers.datasets import SEVEN, rafdb_official
from omegaconf import DictConfig, OmegaConf

from fer_voting.config import compose
from fer_voting.pack import job


def configuration(tmp_path: Path, **values: Any) -> DictConfig:
    node = compose(["dataset=rafdb", f"output_dir={tmp_path / 'outputs'}"]).dataset
    node = {k: v for k, v in node.items() if k != "augment"} | {"root": str(tmp_path / "raf")} | values
    return OmegaConf.create({"dataset": node})


@pytest.fixture
def broken_image(tmp_path: Path) -> None:
    rafdb_official(tmp_path / "raf", {"train": dict.fromkeys(SEVEN, 3), "test": dict.fromkeys(SEVEN, 2)})
    (tmp_path / "raf" / "Image" / "aligned" / "test_0001_aligned.jpg").unlink()


@pytest.mark.usefixtures("broken_image")
def test_packing_twice_packs_once(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    def folder_of_pack() -> Path:
        job(configuration(tmp_path))
        line, problems = capsys.readouterr().out.splitlines()
        assert problems == "1 images can't be used: python -m fer_voting.audit lists them"
        told = re.fullmatch(r"(.*): 34 images, (0\.\d) MiB, after .*", line)
        assert told is not None
        assert float(told[2]) == pytest.approx(34 * 48 * 48 * 3 / 2**20, abs=0.1)
        return Path(told[1])

    folder = folder_of_pack()
    made = (folder / "images.npy").stat().st_mtime_ns
    assert folder_of_pack() == folder
    assert (folder / "images.npy").stat().st_mtime_ns == made


@pytest.mark.usefixtures("broken_image")
def test_packing_can_stop_at_the_first_bad_file(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"missing: .*test_0001_aligned.*\(dataset\.on_error=raise\)"):
        job(configuration(tmp_path, on_error="raise"))
