"""metrics.csv: one row an epoch, written atomically."""

import csv
from pathlib import Path

import lightning as L

from fer_voting.runs.run import read_history
from fer_voting.system.atomic import write_atomically


class History(L.Callback):
    """Writes every figure of an epoch to `path`.

    Lightning's CSVLogger starts its file anew when a run goes on; this one keeps the epochs that count. An epoch
    without validation has empty cells.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self.rows: list[dict[str, float]] = []
        self.validated = False

    def on_train_start(self, trainer: L.Trainer, module: L.LightningModule) -> None:
        self.rows = [row for row in read_history(self.path) if row["epoch"] < trainer.current_epoch]

    def on_train_epoch_start(self, trainer: L.Trainer, module: L.LightningModule) -> None:
        rate = trainer.optimizers[0].param_groups[0]["lr"]  # at the epoch's end it is the next one's
        self.rows.append({"epoch": trainer.current_epoch, "learning_rate": rate})
        self.validated = False

    def on_validation_end(self, trainer: L.Trainer, module: L.LightningModule) -> None:
        self.validated = True

    def on_train_epoch_end(self, trainer: L.Trainer, module: L.LightningModule) -> None:
        metrics = sorted(trainer.callback_metrics.items())  # those of the last validation, too, whenever that was
        self.rows[-1] |= {
            name: value.item() for name, value in metrics if self.validated or not name.startswith("val/")
        }
        if trainer.is_global_zero:
            names = list(dict.fromkeys(name for row in self.rows for name in row))
            with write_atomically(self.path) as file:
                writer = csv.DictWriter(file, names)
                writer.writeheader()
                writer.writerows(self.rows)
