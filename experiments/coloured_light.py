"""The cost of coloured light to a network that sees colours or grey: `python -m experiments.coloured_light --root DIR`.

Grey faces of FER2013's PublicTest are lit: each channel is multiplied by its share of the light. Prints the share of
decisions that differ from those without the light, where the network that ships sees the colours, and where it sees
grey, as its file asks. DIR holds fer2013.csv. Five minutes on one core for 600 faces. Nothing written holds a face.
"""

from dataclasses import replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from experiments.common import Report
from experiments.public_test import publish_sample
from fer_voting import networks
from fer_voting.data.module import FERDataModule
from fer_voting.face_input import COLOURS, FaceInput
from fer_voting.inference.recognizer import Recognizer
from fer_voting.inference.runtime import TorchRuntime
from fer_voting.results.table import Table

LIGHTS = {"red": (1, 0.5, 0.5), "a warm lamp": (1, 0.8, 0.5), "a blue screen": (0.6, 0.75, 1)}
"""Shares of red, green and blue."""


def judge(recognizers: dict[str, Recognizer], faces: NDArray[np.uint8]) -> list[dict[str, Any]]:
    """The number of faces uint8 `[N, S, S, 3]` whose decision each of LIGHTS changes, by recogniser."""
    unlit = {name: recognizer(faces).class_ids for name, recognizer in recognizers.items()}
    return [
        {"light": light, "faces": len(faces)}
        | {
            name: int((recognizer((faces * shares).round().astype(np.uint8)).class_ids != unlit[name]).sum())
            for name, recognizer in recognizers.items()
        }
        for light, shares in LIGHTS.items()
    ]


def report(rows: list[dict[str, Any]]) -> Report:
    written = Report("coloured_light", "Faces of FER2013's PublicTest in coloured light", rows=rows)
    table = Table(["light", "seen in colour", "seen grey"], [])
    table.rows.extend([row["light"], *(f"{100 * row[name] / row['faces']:.1f}" for name in COLOURS)] for row in rows)
    written.add_table(table)
    written.add(f"Share of {rows[0]['faces']:,} decisions in % that the light changes.")
    return written


def main(arguments: list[str] | None = None) -> None:
    def report_on(data: FERDataModule, chosen: NDArray[np.int64]) -> Report:
        network = networks.load_network()
        recognizers = {
            colour: Recognizer(TorchRuntime(network.net, replace(network.info, faces=FaceInput(colour)), network.vote))
            for colour in COLOURS
        }
        return report(judge(recognizers, np.asarray(data.pack.images[chosen])))

    publish_sample(__doc__, "coloured_light", arguments, report_on)


if __name__ == "__main__":
    main()
