"""Averages of networks: each weight by hand, and which networks have none."""

from pathlib import Path

import numpy as np
import pytest
import torch
from helpers.networks import SEVEN, write_checkpoint

from experiments.average import main
from fer_voting.models.checkpoint import load_weights
from fer_voting.networks import load_network


def test_every_weight_is_the_average(tmp_path: Path) -> None:
    files = [write_checkpoint(tmp_path / f"{seed}.ckpt", seed=seed) for seed in (0, 1)]
    out = tmp_path / "made" / "average.ckpt"
    main([*map(str, files), "--shares", "0.75", "0.25", "--out", str(out)])
    (first, info), (second, _), (averaged, averaged_info) = map(load_weights, (*files, out))
    assert averaged_info == info
    assert averaged.keys() == first.keys()
    for key, value in averaged.items():
        assert value.dtype == first[key].dtype
        expected = 0.75 * first[key].double().numpy() + 0.25 * second[key].double().numpy()
        np.testing.assert_allclose(value, expected if value.is_floating_point() else first[key], rtol=1e-5, atol=1e-7)
    assert any((averaged[key] != first[key]).any() for key in averaged)
    with torch.no_grad():
        assert load_network(out).net(torch.zeros(1, 3, 24, 24)).isfinite().all()


def test_equal_shares_are_the_default(tmp_path: Path) -> None:
    files = [write_checkpoint(tmp_path / f"{seed}.ckpt", seed=seed) for seed in (0, 1, 2)]
    main([*map(str, files), "--out", str(tmp_path / "average.ckpt")])
    states = [load_weights(file)[0]["fc.weight"] for file in files]
    averaged = load_weights(tmp_path / "average.ckpt")[0]["fc.weight"]
    torch.testing.assert_close(averaged, torch.stack(states).mean(dim=0))


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["a.ckpt"], "two networks or more"),
        (["a.ckpt", "b.ckpt", "--shares", "0.5"], "2 numbers from 0 that sum to 1"),
        (["a.ckpt", "b.ckpt", "--shares", "0.5", "0.6"], "--shares 0.5 0.6"),
        (["a.ckpt", "b.ckpt", "--shares", "1.5", "-0.5"], "numbers from 0"),
        (["a.ckpt", "a.ckpt", "--out", "a.ckpt"], "--out a.ckpt: a new file"),
        (["a.ckpt", "gone.ckpt"], "gone.ckpt does not exist"),
        (["a.ckpt", "other.ckpt"], r"other.ckpt has class_names ('happy', 'sad'), and a.ckpt"),
    ],
)
def test_networks_without_an_average(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], words: list[str], message: str
) -> None:
    monkeypatch.chdir(tmp_path)
    for name, classes in (("a", SEVEN), ("b", SEVEN), ("other", ("happy", "sad"))):
        write_checkpoint(Path(f"{name}.ckpt"), classes=classes)
    with pytest.raises(SystemExit) as stop:
        main(["--out", "out.ckpt", *words])
    assert message in capsys.readouterr().err + str(stop.value.code)
    assert not Path("out.ckpt").exists()
