import time

import lightning as L
import pytest
import torch

from fer_voting.training.estimate import cost_of_determinism, images_of_epoch, use_fastest


def step_of(milliseconds: dict[int, float]):
    """A step that takes a time of its own with each number of threads, and returns it."""

    def step() -> float:
        start = time.perf_counter()
        time.sleep(milliseconds[torch.get_num_threads()] / 1000)
        return time.perf_counter() - start

    return step


@pytest.fixture(autouse=True)
def as_before():
    threads = torch.get_num_threads()
    yield
    torch.set_num_threads(threads)


def test_fewer_threads_are_taken_where_they_gain_much(messages: pytest.LogCaptureFixture):
    use_fastest("x", (4, 2, 1), step_of({4: 40, 2: 8, 1: 2}))
    assert torch.get_num_threads() == 1
    assert "x: trains with 1 of 4 threads" in messages.text


def test_all_threads_are_taken_where_fewer_gain_little(messages: pytest.LogCaptureFixture):
    use_fastest("x", (4, 2, 1), step_of({4: 20, 2: 18, 1: 30}))
    assert torch.get_num_threads() == 4
    assert not messages.text


def test_a_single_choice_costs_no_step():
    use_fastest("x", (1,), lambda: pytest.fail("timed"))


@pytest.mark.parametrize(
    ("limit", "images"),
    [(None, 100), (1.0, 100), (0.5, 64), (0.1, 0), (0, 0), (1, 32), (3, 96), (4, 100), (1000, 100)],
)
def test_images_of_an_epoch_are_those_that_lightning_trains(limit: int | float | None, images: int):
    assert images_of_epoch(100, 32, limit) == images
    loader = torch.utils.data.DataLoader(range(100), batch_size=32)  # type: ignore[arg-type,var-annotated]
    seen = 0

    class Counting(L.LightningModule):
        automatic_optimization = False

        def __init__(self) -> None:
            super().__init__()
            self.layer = torch.nn.Linear(1, 1)

        def training_step(self, batch: torch.Tensor) -> None:
            nonlocal seen
            seen += len(batch)

        def configure_optimizers(self) -> torch.optim.Optimizer:
            return torch.optim.SGD(self.parameters())

    if images:  # of 0 batches Lightning trains nothing, or refuses the share
        trainer = L.Trainer(
            max_epochs=1,
            limit_train_batches=limit,
            accelerator="cpu",
            logger=False,
            enable_checkpointing=False,
            enable_progress_bar=False,
            enable_model_summary=False,
        )
        trainer.fit(Counting(), loader)
        assert seen == images


@pytest.mark.parametrize("warns", [False, True])
def test_the_cost_of_determinism(warns: bool):
    torch.use_deterministic_algorithms(True, warn_only=warns)
    try:
        ratio = cost_of_determinism(lambda: 3.0 if torch.are_deterministic_algorithms_enabled() else 0.5)
        assert ratio == 6
        assert torch.are_deterministic_algorithms_enabled()
        assert torch.is_deterministic_algorithms_warn_only_enabled() == warns
    finally:
        torch.use_deterministic_algorithms(False)
