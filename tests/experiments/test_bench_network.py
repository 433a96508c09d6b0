"""The benchmark runs at tiny size, and its references compute what the package computes."""

import json
from pathlib import Path

import pytest
import torch
from torchvision.transforms.v2.functional import ten_crop

from experiments.bench.network import PARTS, Clock, Reference, main
from experiments.bench.plain import algorithm_1
from experiments.common import open_data
from fer_voting.data.augment.batched import BatchedAugment
from fer_voting.models import SPLITS, VotingResNet18
from fer_voting.runs.run import Run


def test_algorithm_1_gives_torchvisions_crops() -> None:
    x = torch.randn(3, 2, 12, 18)
    assert torch.equal(algorithm_1(x), torch.cat([torch.stack(ten_crop(image, [10, 15])) for image in x]))


@pytest.mark.parametrize("split", SPLITS)
def test_the_reference_is_the_same_network(split: str) -> None:
    torch.manual_seed(0)
    reference, net = Reference(split, width=4).double(), VotingResNet18(split, width=4).double()
    net.load_state_dict(reference.state_dict())
    images = torch.randn(2, 3, 24, 24, dtype=torch.float64)
    torch.testing.assert_close(net(images), reference(images), rtol=1e-12, atol=1e-12)


def test_the_share_between_steps_by_hand() -> None:
    clock = Clock()
    clock.begun, clock.ended = [0.0, 2.0, 5.0], [1.0, 4.0, 9.0]
    assert clock.share_between_steps == (1 + 1) / 8


def test_the_loaders_that_are_measured_augment_as_the_paper_does() -> None:
    assert isinstance(open_data(["dataset=faces", "augment=paper", "seed=3"]).augment, BatchedAugment)
    assert open_data(["dataset=faces"], augment=None).augment is None


MEASURED = [name for name in PARTS if name not in ("compile", "sweep", "plain")]


@pytest.fixture(scope="module")
def measured(trained: Run, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a benchmark with a trained network; all parts but those for which two
    cores take a minute."""
    folder = tmp_path_factory.mktemp("measured")
    data = ["dataset=faces", "dataset.size=24", "dataset.train_size=60", "dataset.val_size=20", "dataset.test_size=20"]
    words = ["--checkpoint", str(trained.best_checkpoint("soft")), "--data", *data, f"output_dir={folder}"]
    main([*MEASURED, "--quick", "--out", str(folder), *words])
    return folder


@pytest.mark.slow
def test_every_part(measured: Path) -> None:
    for name in MEASURED:
        found = json.loads((measured / f"{name}.json").read_text())
        assert found["environment"]["quick"] is True
        assert all(-100 <= row["figure"] < 1e9 for row in found["rows"])  # accuracy lost may be gained
        assert all(row["figure"] >= 0 for row in found["rows"] if not row["what"].endswith("accuracy lost"))
        assert found["rows"]
    for form in ("md", "csv"):
        assert "m1 training step, bf16, of the reference's time" in (measured / f"table.{form}").read_text()


def test_without_a_trained_network_its_part_says_what_it_lacks(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    main(["trained", "--quick", "--out", str(tmp_path)])
    assert "--checkpoint" in capsys.readouterr().err
    assert json.loads((tmp_path / "trained.json").read_text())["rows"] == []


@pytest.mark.parametrize(
    ("words", "named"), [(["speed"], "speed"), (["--checkpoint", "none.ckpt"], "--checkpoint: none.ckpt")]
)
def test_wrong_words(words: list[str], named: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit, match="2"):
        main(words)
    assert named in capsys.readouterr().err.splitlines()[-1]


@pytest.mark.slow
def test_what_the_precisions_cost_a_trained_network(trained: Run, measured: Path) -> None:
    rows = {row["what"]: row["figure"] for row in json.loads((measured / "trained.json").read_text())["rows"]}
    result = trained.result()
    assert result is not None
    on = "m3 of width 16 on faces's 20 validation images"
    plain = rows[f"{on}, float64: accuracy"]
    assert plain == pytest.approx(100 * result["votes"]["soft"]["val"]["accuracy"])
    for runtime in ("ONNX Runtime", "OpenVINO"):
        assert rows[f"{on}, {runtime}, float32: accuracy lost"] == 0
        assert rows[f"{on}, {runtime}, float32: relative error of the logits"] < 1e-5
        assert abs(rows[f"{on}, {runtime}, int8: accuracy lost"]) <= 15  # 3 images of 20
    inference = [row for row in json.loads((measured / "inference.json").read_text())["rows"] if row["least"]]
    assert "m3 of width 16, trained on faces, aligned faces, 3 at once, OpenVINO, int8" in [
        row["what"] for row in inference if row["unit"] == "times faster"
    ]
