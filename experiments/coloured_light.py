"""The cost of coloured light to a network that sees colours or grey: `python -m experiments.coloured_light --root DIR`.

Grey faces of FER2013's PublicTest are lit: each channel is multiplied by its share of the light. Prints the share of
decisions that differ from those without the light, where the network that ships sees the colours, and where it sees
grey, as its file asks; of the latter, also where the light is white and as dark, and where the camera exposes longer,
so that a grey face stays as bright. DIR holds fer2013.csv. Six minutes on one core for 600 faces. Nothing written holds
a face.
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
LUMA = (0.299, 0.587, 0.114)
"""Their weights in grey (ITU-R BT.601)."""
COLUMNS = {
    "rgb": "seen in colour",
    "grey": "seen grey",
    "as_dark": "grey, white light as dark",
    "as_bright": "grey, exposed as bright",
}


def judge(recognizers: dict[str, Recognizer], faces: NDArray[np.uint8]) -> list[dict[str, Any]]:
    """The number of faces uint8 `[N, S, S, 3]` whose decision each of LIGHTS changes, by recogniser.

    `as_dark` and `as_bright` are of the recogniser `grey`, in white light of the same luma, and at the luma of before.
    """
    unlit = {name: recognizer(faces).class_ids for name, recognizer in recognizers.items()}

    def changed(name: str, shares: NDArray[np.float64] | float) -> int:
        lit = (faces * shares).round().clip(max=255).astype(np.uint8)
        return int((recognizers[name](lit).class_ids != unlit[name]).sum())

    rows = []
    for light, of_channels in LIGHTS.items():
        shares = np.array(of_channels)
        luma = float(shares @ LUMA)
        row = {name: changed(name, shares) for name in recognizers}
        row |= {"as_dark": changed("grey", luma), "as_bright": changed("grey", shares / luma)}
        rows.append({"light": light, "faces": len(faces), **row})
    return rows


def report(rows: list[dict[str, Any]]) -> Report:
    written = Report("coloured_light", "Faces of FER2013's PublicTest in coloured light", rows=rows)
    table = Table(["light", *COLUMNS.values()], [])
    table.rows.extend([row["light"], *(f"{100 * row[name] / row['faces']:.1f}" for name in COLUMNS)] for row in rows)
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
