"""The flow that data sets share, on RAF-DB's and AffectNet's layouts."""

import json
import os
import shutil
from collections import Counter, defaultdict
from pathlib import Path
from typing import Any

import lightning as L
import pytest
import torch
from helpers.composed import composed
from helpers.datasets import SEVEN, affectnet_release2, class_folders, class_image, rafdb_official, save
from hydra.utils import get_class
from omegaconf import OmegaConf

from fer_voting.config import CONF_DIR, make
from fer_voting.data.augment.batched import BatchedAugment
from fer_voting.data.augment.by_albumentations import AlbumentationsAugment
from fer_voting.data.corruptions import Corrupted
from fer_voting.data.files import FilesDataModule
from fer_voting.data.images import decoder_digest
from fer_voting.data.module import normalise
from fer_voting.data.sets.rafdb import RAFDBDataModule

COUNTS = {"train": dict.fromkeys(SEVEN, 10), "test": dict.fromkeys(SEVEN, 2)}
ERASE = {"probability": 0.5, "area": [0.1, 0.2], "aspect": [0.5, 2.0]}


def rafdb(root: Path, **arguments: Any) -> RAFDBDataModule:
    return RAFDBDataModule(name="rafdb", root=root, **{"cache_dir": root.parent / "packs"} | arguments)


@pytest.fixture
def root(tmp_path: Path) -> Path:
    rafdb_official(tmp_path / "raf", COUNTS)
    return tmp_path / "raf"


# --- configuration --------------------------------------------------------------------------------------------


@pytest.mark.slow
@pytest.mark.parametrize("name", sorted(path.stem for path in (CONF_DIR / "dataset").glob("*.yaml")))
def test_every_data_set_of_the_configuration_is_one(name: str, tmp_path: Path) -> None:
    # Values that a set of the user's own needs are no defaults.
    own = {"named": [r"dataset.pattern='(?P<label>\w+)'", "dataset.name=named"]}.get(name, [])
    words = [f"dataset={name}", f"output_dir={tmp_path}", *own]
    node = OmegaConf.to_container(composed(words).dataset, resolve=True)
    assert isinstance(node, dict)
    data = make(node, augment=composed(["augment=paper"]).augment)
    assert data.name == name
    assert isinstance(data.augment, BatchedAugment)
    if isinstance(data, FilesDataModule):
        with pytest.raises(ValueError, match=rf"dataset\.root is not set: give the folder that holds {name}"):
            data.setup()


def test_the_papers_protocol_is_in_the_configuration() -> None:
    configs = [composed([f"dataset={name}"]) for name in ("affectnet", "rafdb")]
    assert [config.protocol for config in configs] == [
        {"epochs": 20, "lr_gamma_per_epoch": 0.65, "init_from": None},
        {"epochs": 40, "lr_gamma_per_epoch": 0.95, "init_from": "affectnet"},
    ]
    affectnet, raf = (config.dataset for config in configs)
    assert (affectnet.batch_size, raf.batch_size) == (135, 135)
    assert (affectnet.size, raf.size) == (48, 48)
    assert (affectnet.val_per_class, raf.val_fraction) == (500, 0.1)
    assert (affectnet.balance.target, raf.balance.target) == ("mean", "none")


def test_a_misspelt_argument_is_refused() -> None:
    node = OmegaConf.to_container(composed(["dataset=rafdb"]).dataset, resolve=True)
    assert isinstance(node, dict)
    with pytest.raises(TypeError, match="val_fractoin"):
        get_class(node["_target_"])(name="rafdb", cache_dir="packs", val_fractoin=0.2)


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        ({"batch_size": 1}, r"dataset\.batch_size=1 must be at least 2"),
        ({"size": 4}, r"dataset\.size=4 must be at least 8"),
        ({"num_workers": "many"}, r"dataset\.num_workers=many must be auto, 0 or more"),
        ({"num_workers": -1}, r"dataset\.num_workers=-1 must be auto, 0 or more"),
        ({"resident": "yes"}, r"dataset\.resident=yes must be auto, true or false"),
        (
            {"resident": True, "augment": AlbumentationsAugment(erase=ERASE)},
            r"dataset\.resident=true needs augment\.backend=batched",
        ),
        ({"on_error": "ignore"}, r"dataset\.on_error=ignore must be skip or raise"),
        ({"val_fraction": 1}, r"dataset\.val_fraction=1 must be between 0 and 1"),
        ({"layout": "tar"}, r"dataset\.layout=tar must be auto, aligned or original or folders"),
        ({"classes": 8}, r"dataset\.classes=8 must be 7 for rafdb"),
    ],
)
def test_a_wrong_value_is_named_with_what_it_may_be(tmp_path: Path, arguments: dict[str, Any], told: str) -> None:
    with pytest.raises(ValueError, match=told):
        rafdb(tmp_path, **arguments)


def test_preparing_builds_the_pack_and_the_setup_opens_it(root: Path) -> None:
    data = rafdb(root)
    data.prepare_data()
    images = data.pack.folder / "images.npy"
    built = images.stat().st_mtime_ns
    data.setup()
    pack = data.pack
    data.prepare_data()
    assert data.pack is pack
    assert images.stat().st_mtime_ns == built


def test_an_unknown_balance_is_named(root: Path) -> None:
    with pytest.raises(ValueError, match=r"dataset\.balance\.target=average is none of mean"):
        rafdb(root, balance={"target": "average"}).setup()


# --- batches --------------------------------------------------------------------------------------------------


def test_normalising() -> None:
    assert normalise(torch.tensor([0, 255, 51], dtype=torch.uint8)).tolist() == pytest.approx([-2, 2, -1.2])


def test_batches(root: Path) -> None:
    data = rafdb(root, batch_size=16)
    data.setup()
    seen: Counter[int] = Counter()
    for images, labels, positions in data.train_dataloader():
        assert images.dtype == torch.uint8
        assert images.shape[1:] == (3, 48, 48)
        assert images.is_contiguous(memory_format=torch.channels_last)
        assert labels.dtype == positions.dtype == torch.int64
        for image, label, position in zip(images, labels, positions, strict=True):
            assert (image.permute(1, 2, 0).numpy() == data.pack.images[position]).all()
            assert data.class_names[label] == data.pack.labels[data.pack.label_ids[position]]
        seen.update(positions.tolist())
        ready, _, _ = data.on_after_batch_transfer((images, labels, positions), 0)
        assert ready.dtype == torch.float32
        assert ready.is_contiguous(memory_format=torch.channels_last)
        assert torch.allclose(ready, (images / 255 - 0.5) / 0.25)
    assert seen == Counter(data.positions("train").tolist())
    for part, loader in (("val", data.val_dataloader()), ("test", data.test_dataloader())):
        assert torch.cat([p for _, _, p in loader]).tolist() == data.positions(part).tolist()  # type: ignore[union-attr]
        assert data.names(part) == data.pack.names(data.positions(part))


def test_only_training_images_are_augmented_and_never_twice_alike(root: Path) -> None:
    data = rafdb(root, augment=AlbumentationsAugment(erase=ERASE))
    data.setup()
    for loader in (data.val_dataloader(), data.test_dataloader()):
        for images, _, positions in loader:  # type: ignore[union-attr]
            assert (images.permute(0, 2, 3, 1).numpy() == data.pack.images[positions.numpy()]).all()
    epochs = []
    for _ in range(2):
        loader = data.train_dataloader() if not epochs else loader
        batches = list(loader)
        order = torch.cat([p for _, _, p in batches]).argsort()
        epochs.append(torch.cat([images for images, _, _ in batches])[order])
    changed = (epochs[0] != epochs[1]).flatten(1).any(1).float().mean()
    assert 0.5 < changed < 1


def test_seeds_change_the_order_and_data_seeds_the_division(root: Path) -> None:
    def order(**arguments: Any) -> tuple[list[int], list[str], str]:
        data = rafdb(root, **arguments)
        data.setup()
        return torch.cat([p for _, _, p in data.train_dataloader()]).tolist(), data.names("val"), data.fingerprint

    usual, again, other_seed, other_data = order(), order(), order(seed=1), order(data_seed=1)
    assert usual == again
    assert other_seed[0] != usual[0]
    assert other_seed[1:] == usual[1:]
    assert other_data[1] != usual[1]
    assert other_data[2] != usual[2]


class _Recorder(L.LightningModule):
    """Notes what each training step is given; its one weight trains on it."""

    def __init__(self, log: list[tuple[int, list[int], float]]) -> None:
        super().__init__()
        self.weight = torch.nn.Parameter(torch.zeros(3))
        self.log_to = log

    def training_step(self, batch: Any, index: int) -> torch.Tensor:
        images, labels, positions = batch
        self.log_to.append((self.current_epoch, positions.tolist(), images.double().sum().item()))
        return ((images.mean((2, 3)) @ self.weight - labels) ** 2).mean()

    def validation_step(self, batch: Any, index: int) -> None:
        self.log_dict({"images": float(len(batch[0]))}, batch_size=1, reduce_fx="sum")

    def configure_optimizers(self) -> torch.optim.Optimizer:
        return torch.optim.SGD(self.parameters(), 1e-3)


Steps = list[tuple[int, list[int], float]]


def _train(root: Path, epochs: int, checkpoint: Path | None = None, **arguments: Any) -> Steps:
    data = rafdb(root, batch_size=20, balance={"target": 12}, **arguments)
    steps: Steps = []
    trainer = L.Trainer(
        accelerator="cpu", max_epochs=epochs, logger=False, enable_checkpointing=False, enable_progress_bar=False,
        enable_model_summary=False, log_every_n_steps=1, default_root_dir=root.parent,
    )  # fmt: skip
    trainer.fit(_Recorder(steps), datamodule=data, ckpt_path=checkpoint, weights_only=True)
    trainer.save_checkpoint(root.parent / f"{epochs}.ckpt")
    return steps


def quietly(test: Any) -> Any:
    """Lightning's warnings about its own insides and about few workers are no fault here."""
    for words in ("does not have many workers", "isinstance.treespec, LeafSpec"):
        test = pytest.mark.filterwarnings(f"ignore:.*{words}")(test)
    return test


@pytest.mark.slow
@quietly
@pytest.mark.parametrize("workers", [0, 2])
@pytest.mark.parametrize("kind", [AlbumentationsAugment, BatchedAugment])
def test_a_resumed_training_is_shown_what_an_unbroken_one_is(root: Path, kind: Any, workers: int) -> None:
    how = {"augment": kind(erase=ERASE), "num_workers": workers}
    whole = _train(root, 4, **how)
    first = _train(root, 2, **how)
    rest = _train(root, 4, root.parent / "2.ckpt", **how)
    assert first + rest == whole
    assert {epoch for epoch, _, _ in rest} == {2, 3}
    for epoch in range(4):
        assert sum(len(positions) for e, positions, _ in whole if e == epoch) == 84


@pytest.mark.parametrize("resident", [False, True])
def test_images_of_an_evaluation_can_be_changed(root: Path, resident: bool) -> None:
    data = rafdb(root, batch_size=20, augment=BatchedAugment(erase=ERASE), resident=resident)
    data.setup()
    device = torch.device("cpu")
    plain, changed = (
        torch.cat([images for images, _, _ in data.evaluation_loader("test", device, change)])
        for change in (None, Corrupted("darkness", 0.5))
    )
    assert torch.equal(changed, (plain.double() / 2).round().to(torch.uint8))  # both round halves to even
    assert not torch.equal(changed, plain)


@quietly
def test_a_resident_pack_shows_the_same(root: Path) -> None:
    augment = BatchedAugment(erase=ERASE)
    plain, resident = (_train(root, 2, augment=augment, resident=resident) for resident in (False, True))
    assert resident == plain
    # Not the images as they are: erased parts are black, which is less than what was there.
    unchanged = _train(root, 2)
    assert [positions for _, positions, _ in plain] == [positions for _, positions, _ in unchanged]
    assert sum(total for _, _, total in plain) < sum(total for _, _, total in unchanged)


@quietly
@pytest.mark.parametrize(
    ("kind", "resident"), [(AlbumentationsAugment, False), (BatchedAugment, False), (BatchedAugment, True)]
)
def test_an_image_that_an_epoch_draws_again_is_augmented_anew(root: Path, kind: Any, resident: bool) -> None:
    seen: dict[int, list[bytes]] = defaultdict(list)

    class Watching(_Recorder):
        def training_step(self, batch: Any, index: int) -> torch.Tensor:
            for image, _, position in zip(*batch, strict=True):
                seen[int(position)].append(image.numpy().tobytes())
            return super().training_step(batch, index)

    augment = kind(rotation={"probability": 1.0, "degrees": 20})
    data = rafdb(root, batch_size=20, balance={"target": 27}, augment=augment, resident=resident)
    trainer = L.Trainer(
        accelerator="cpu", max_epochs=1, logger=False, enable_checkpointing=False, enable_progress_bar=False,
        enable_model_summary=False, log_every_n_steps=1, default_root_dir=root.parent, limit_val_batches=0,
    )  # fmt: skip
    trainer.fit(Watching([]), datamodule=data)
    assert sorted(seen) == sorted(data.positions("train").tolist())
    assert all(len(set(images)) == len(images) == 3 for images in seen.values())


@quietly
def test_validation_images_are_not_changed(root: Path) -> None:
    data = rafdb(root, augment=BatchedAugment(erase={**ERASE, "probability": 1.0}))
    seen = []

    class Watching(_Recorder):
        def validation_step(self, batch: Any, index: int) -> None:
            seen.append(batch[0])

    trainer = L.Trainer(
        accelerator="cpu", max_epochs=1, logger=False, enable_checkpointing=False, enable_progress_bar=False,
        enable_model_summary=False, log_every_n_steps=1, default_root_dir=root.parent, num_sanity_val_steps=0,
    )  # fmt: skip
    trainer.fit(Watching([]), datamodule=data)
    images = torch.from_numpy(data.pack.images[data.positions("val")]).permute(0, 3, 1, 2)
    assert torch.equal(torch.cat(seen), normalise(images))


# --- divisions ------------------------------------------------------------------------------------------------


def test_refit_trains_on_training_and_validation_and_has_no_validation(root: Path) -> None:
    select, refit = rafdb(root), rafdb(root, refit=True)
    select.setup()
    refit.setup()
    assert refit.names("train") == sorted(select.names("train") + select.names("val"))
    assert list(refit.counts()) == ["train", "test"]
    assert refit.names("test") == select.names("test")
    assert refit.val_dataloader() == []
    assert refit.train_size == 70
    assert refit.fingerprint != select.fingerprint


def test_leaks_can_be_dropped(root: Path) -> None:
    plain = rafdb(root)
    plain.setup()
    train, val, test = (plain.names(part) for part in ("train", "val", "test"))
    folder = root / "Image" / "aligned"
    for copy, original in ((train[0], test[0]), (train[1], test[0]), (val[0], test[1])):
        (folder / f"{copy}_aligned.jpg").write_bytes((folder / f"{original}_aligned.jpg").read_bytes())
    leaky, dropped, refit = (
        rafdb(root, drop_leaks=d, refit=r) for d, r in ((False, False), (True, False), (True, True))
    )
    for data in (leaky, dropped, refit):
        data.setup()
    judged = {h.tobytes() for part in ("val", "test") for h in leaky.pack.hashes[leaky.positions(part)]}
    leaks = [n for n, p in zip(leaky.names("train"), leaky.positions("train"), strict=True)
             if leaky.pack.hashes[p].tobytes() in judged]  # fmt: skip
    tested = {h.tobytes() for h in leaky.pack.hashes[leaky.positions("test")]}
    val_leaks = [n for n, p in zip(leaky.names("val"), leaky.positions("val"), strict=True)
                 if leaky.pack.hashes[p].tobytes() in tested]  # fmt: skip
    assert len(leaks) + len(val_leaks) == 3
    assert dropped.names("train") == [name for name in leaky.names("train") if name not in leaks]
    assert dropped.names("val") == [name for name in leaky.names("val") if name not in val_leaks]
    assert dropped.names("test") == leaky.names("test")
    assert dropped.fingerprint != leaky.fingerprint
    assert refit.train_size == 70 - 3


def test_balancing_is_told_and_counted(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level("INFO")
    counts = dict(zip(SEVEN, (6, 9, 3, 3, 3, 3, 8), strict=True))
    class_folders(tmp_path / "raf", {"train": counts, "val": dict.fromkeys(SEVEN, 1)}, {c: c for c in SEVEN})
    data = rafdb(tmp_path / "raf", balance={"target": "mean"})
    data.setup()
    assert data.train_size == 7 * 5
    assert "train: 35 images (neutral 6, happy 9, sad 3, surprise 3, fear 3, disgust 3, anger 8)" in caplog.text
    assert "balanced (mean): 35 images per epoch, 5 of each class" in caplog.text
    labels = torch.cat([labels for _, labels, _ in data.train_dataloader()])
    assert torch.bincount(labels).tolist() == [5] * 7


def test_a_stage_without_images_is_an_error(tmp_path: Path) -> None:
    class_folders(tmp_path / "raf", {"train": {"happy": 3}}, {"happy": "happy"})
    with pytest.raises(ValueError, match="rafdb: there are no val images"):
        rafdb(tmp_path / "raf").setup()


# --- what the data are ----------------------------------------------------------------------------------------


def test_the_summary_is_plain_and_says_what_differs(root: Path) -> None:
    def summary(where: Path, **arguments: Any) -> dict[str, Any]:
        data = rafdb(where, **arguments)
        data.setup()
        assert data.data_summary()["fingerprint"] == data.fingerprint
        return json.loads(json.dumps(data.data_summary(), allow_nan=False))

    first = summary(root)
    plain = {"fingerprint", "layout", "counts", "classes", "size", "preparation", "decoder", "digests"}
    assert set(first) == plain | {"left_out", "copies", "notes"}
    assert first["layout"] == "aligned"
    assert first["classes"] == list(SEVEN)
    assert first["counts"]["test"] == dict.fromkeys(SEVEN, 2)
    shutil.copytree(root, root.parent / "copy")
    assert summary(root.parent / "copy") == first  # the same files elsewhere

    save(root / "Image" / "aligned" / "test_0001_aligned.jpg", class_image("neutral", 12345))
    changed = summary(root)
    assert {key for key in first if first[key] != changed[key]} == {"fingerprint", "digests"}
    assert {part for part in first["digests"] if first["digests"][part] != changed["digests"][part]} == {"test"}
    assert {key for key in changed if changed[key] != summary(root, size=24)[key]} == {"fingerprint", "size"}
    refit = summary(root, refit=True)
    assert refit["counts"]["train"] == dict.fromkeys(SEVEN, 10)
    assert refit["fingerprint"] != changed["fingerprint"]


def test_the_fingerprint_covers_what_augmentation_depends_on(root: Path) -> None:
    """An unusable image before the others shifts their positions in the pack, and so their random numbers."""
    data = rafdb(root)
    data.setup()
    labels = root / "EmoLabel" / "list_patition_label.txt"
    labels.write_text("train_00900.jpg 5\n" + labels.read_text())
    (root / "Image" / "aligned" / "train_00900_aligned.jpg").write_bytes(b"")
    shifted = rafdb(root, max_bad_fraction=0.1)
    shifted.setup()
    assert {part: shifted.names(part) for part in data.counts()} == {part: data.names(part) for part in data.counts()}
    assert shifted.fingerprint != data.fingerprint


def test_a_decoder_of_other_pixels_makes_the_pack_out_of_date(root: Path, caplog: pytest.LogCaptureFixture) -> None:
    data = rafdb(root)
    pack = data.make_pack()
    assert pack.key["decoder"] == decoder_digest()
    meta = json.loads((pack.folder / "pack.json").read_text())
    meta["key"]["decoder"] = "of an earlier release"
    (pack.folder / "pack.json").write_text(json.dumps(meta))
    assert rafdb(root).make_pack().key["decoder"] == decoder_digest()
    assert "is out of date (decoder changed): it is rebuilt" in caplog.text


# --- packs ----------------------------------------------------------------------------------------------------


def test_the_pack_is_found_fresh_and_made_again_when_a_file_changes(root: Path) -> None:
    data = rafdb(root)
    data.setup()
    made = os.stat(data.pack.folder / "images.npy").st_mtime_ns
    again = rafdb(root)
    again.setup()
    assert os.stat(again.pack.folder / "images.npy").st_mtime_ns == made
    assert again.fingerprint == data.fingerprint
    save(root / "Image" / "aligned" / "train_00001_aligned.jpg", class_image("neutral", 12345))
    changed = rafdb(root)
    changed.setup()
    assert os.stat(changed.pack.folder / "images.npy").st_mtime_ns != made
    assert (changed.pack.hashes != data.pack.hashes).sum() == 1
    assert changed.fingerprint != data.fingerprint


def test_sizes_have_packs_of_their_own(root: Path) -> None:
    small, usual = rafdb(root, size=24), rafdb(root)
    assert small.make_pack().images.shape[1:] == (24, 24, 3)
    assert usual.make_pack().images.shape[1:] == (48, 48, 3)
    assert small.pack.folder != usual.pack.folder


def test_outputs_inside_the_root_do_not_make_the_pack_stale(root: Path) -> None:
    for _ in range(2):
        data = rafdb(root, cache_dir=root / "outputs" / "packs")
        data.setup()
        seen = os.stat(data.pack.folder / "images.npy").st_ino
    again = rafdb(root, cache_dir=root / "outputs" / "packs")
    again.setup()
    assert os.stat(again.pack.folder / "images.npy").st_ino == seen


def test_bad_files_are_left_out_up_to_a_share(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    counts = {"train": dict.fromkeys(SEVEN, 20), "test": dict.fromkeys(SEVEN, 10)}
    rafdb_official(tmp_path / "raf", counts)
    (tmp_path / "raf" / "Image" / "aligned" / "train_00001_aligned.jpg").unlink()
    (tmp_path / "raf" / "Image" / "aligned" / "test_0001_aligned.jpg").write_bytes(b"")
    data = rafdb(tmp_path / "raf")
    data.setup()
    assert len(data.pack.problems) == 2  # of 210: less than 1 %
    warnings = [r.getMessage() for r in caplog.records if "can't be used" in r.getMessage()]
    assert len(warnings) == 1
    assert "2 of 210 images can't be used (missing 1, unreadable 1), e.g. missing:" in warnings[0]
    assert sum(data.counts()["test"].values()) == 69
    with pytest.raises(ValueError, match=r"dataset\.max_bad_fraction=0\.005 allows fewer: python -m fer_voting\.audit"):
        rafdb(tmp_path / "raf", max_bad_fraction=0.005).setup()
    with pytest.raises(ValueError, match=r"missing: .*train_00001_aligned.*dataset\.on_error=raise"):
        rafdb(tmp_path / "raf", on_error="raise").setup()


def test_affectnet_protocol_on_a_copy_of_other_order_is_the_same(tmp_path: Path) -> None:
    """The division depends on the images, not on where they lie or in which order they are read."""
    from fer_voting.data.sets.affectnet import AffectNetDataModule

    counts = {"train": dict.fromkeys(SEVEN, 9), "val": dict.fromkeys(SEVEN, 2)}
    affectnet_release2(tmp_path / "a", counts)
    affectnet_release2(tmp_path / "b", counts, "valid_set")
    for number in range(63):  # the same images under names that sort the other way round
        for old, new in ((f"images/{number}.jpg", f"images/{999 - number}.jpg"),
                         (f"annotations/{number}_exp.npy", f"annotations/{999 - number}_exp.npy")):  # fmt: skip
            (tmp_path / "b" / "train_set" / old).rename(tmp_path / "b" / "train_set" / new)
    contents = []
    for name in ("a", "b"):
        data = AffectNetDataModule(name=name, root=tmp_path / name, cache_dir=tmp_path / "packs", val_per_class=3)
        data.setup()
        contents.append({part: {h.tobytes() for h in data.pack.hashes[data.positions(part)]} for part in data.counts()})
    assert contents[0] == contents[1]
