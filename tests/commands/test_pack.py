"""The command; the packs themselves are tested in test_data_pack.py, the command line in test_audit.py."""

import re
from pathlib import Path
from typing import Any

import pytest
from helpers.composed import composed
from helpers.datasets import SEVEN, rafdb_official
from omegaconf import DictConfig, OmegaConf

from fer_voting.pack import job, prune
from fer_voting.runs.run import Run


def configuration(tmp_path: Path, **values: Any) -> DictConfig:
    node = composed(["dataset=rafdb", f"output_dir={tmp_path / 'outputs'}"]).dataset
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
        assert problems == "1 image can't be used: python -m fer_voting.audit says why"
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


def run_on(tmp_path: Path, name: str, root: Path) -> None:
    """The folder of a run on RAF-DB in `root`."""
    node = OmegaConf.to_container(configuration(tmp_path, root=str(root)).dataset, resolve=True)
    run = Run(tmp_path / "outputs", name)
    run.dir.mkdir(parents=True)
    OmegaConf.save(OmegaConf.create({"dataset": node}), run.dir / "config.yaml")


@pytest.mark.usefixtures("broken_image")
def test_the_same_files_in_another_place_are_one_pack_and_others_another(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    def pack_of(root: Path) -> str:
        job(configuration(tmp_path, root=str(root)))
        return capsys.readouterr().out.partition(":")[0]

    first = pack_of(tmp_path / "raf")
    (tmp_path / "link").symlink_to(tmp_path / "raf")
    assert pack_of(tmp_path / "link") == first
    (tmp_path / "raf").rename(tmp_path / "moved")
    assert pack_of(tmp_path / "moved") == first
    rafdb_official(tmp_path / "raf", {"train": dict.fromkeys(SEVEN, 4), "test": dict.fromkeys(SEVEN, 2)})
    assert pack_of(tmp_path / "raf") != first

    # A pack that no run needs is listed, and removed only when asked to.
    run_on(tmp_path, "one", tmp_path / "moved")
    prune(["--prune", str(tmp_path / "outputs")])
    listed = capsys.readouterr().out
    assert "1 pack that no run" in listed
    assert first not in listed
    unneeded = Path(listed.partition(":")[0])
    assert unneeded.is_dir()
    prune(["--prune", "--remove", str(tmp_path / "outputs")])
    assert not unneeded.exists()
    assert Path(first).is_dir()
    # A run whose files are not there now keeps its data set's packs.
    capsys.readouterr()
    (tmp_path / "moved").rename(tmp_path / "elsewhere")
    prune(["--prune", "--remove", str(tmp_path / "outputs")])
    assert capsys.readouterr().out.startswith("0 packs")
    assert Path(first).is_dir()
    # Nothing is removed where it is not known what a run needs.
    run_on(tmp_path, "two", tmp_path / "elsewhere")
    (Run(tmp_path / "outputs", "two").dir / "config.yaml").write_text("[")
    with pytest.raises(SystemExit, match=r"config\.yaml is damaged"):
        prune(["--prune", "--remove", str(tmp_path / "outputs")])
