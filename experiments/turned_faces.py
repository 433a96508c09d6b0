"""The cost of a turned face, with and without alignment: `python -m experiments.turned_faces --root DIR [--faces 600]`.

Faces of FER2013's PublicTest become photos: enlarged, on grey, turned by 0 to 45 degrees to either side. Each is found,
cut out and recognised as `fer_voting.predict` does, with and without `--no-align`. Prints, for each angle, the share of
right decisions by FER2013's labels among the faces that were found, and how many were not. The network is the one that
ships. DIR holds fer2013.csv. A quarter of an hour on one core for 600 faces. Nothing written holds a face.
"""

from typing import Any

import numpy as np
import PIL.Image
from numpy.typing import NDArray

from experiments.common import Report
from experiments.public_test import publish_sample
from fer_voting.data.module import FERDataModule
from fer_voting.inference.faces import cut_face
from fer_voting.inference.recognizer import Recognizer
from fer_voting.results.table import Table
from fer_voting.system.messages import progress_bar

ANGLES = (0, 15, 30, 45)
"""Degrees."""
ENLARGED, SIDE, GREY = 3, 224, (128, 128, 128)
"""The face is enlarged so many times, on a photo of SIDE x SIDE pixels."""


def make_photo(face: NDArray[np.uint8], degrees: float) -> NDArray[np.uint8]:
    """A photo of a face uint8 `[S, S, 3]`, turned clockwise, on grey: uint8 `[SIDE, SIDE, 3]`."""
    side = ENLARGED * len(face)
    photo = PIL.Image.new("RGB", (SIDE, SIDE), GREY)
    start = (SIDE - side) // 2
    photo.paste(PIL.Image.fromarray(face).resize((side, side), PIL.Image.Resampling.BICUBIC), (start, start))
    return np.asarray(photo.rotate(-degrees, PIL.Image.Resampling.BICUBIC, fillcolor=GREY))


def judge(recognizer: Recognizer, faces: NDArray[np.uint8], labels: list[str]) -> list[dict[str, Any]]:
    """The counts of each of ANGLES: faces that were found, and of right decisions with and without alignment."""
    rows = []
    for degrees in ANGLES:
        cuts: dict[str, list[NDArray[np.uint8]]] = {"aligned": [], "not_aligned": []}
        found = []
        for number, face in enumerate(progress_bar(faces, desc=f"{degrees} degrees", unit="face")):
            photo = make_photo(face, degrees if number % 2 else -degrees)
            boxes = recognizer.find(photo)
            if not len(boxes):
                continue
            centres = boxes[:, :2] + boxes[:, 2:4] / 2
            box = boxes[np.abs(centres - SIDE / 2).sum(axis=1).argmin()]
            found.append(number)
            for name, turned in (("aligned", box), ("not_aligned", box[:6] * (1, 1, 1, 1, 1, 0))):
                size = recognizer.runtime.image_size
                cuts[name].append(cut_face(PIL.Image.fromarray(photo), turned, size, recognizer.margin))
        expected = np.array(labels)[found]
        right = {
            name: int((np.array(recognizer.classify(np.stack(images)).classes) == expected).sum()) if images else 0
            for name, images in cuts.items()
        }
        rows.append({"degrees": degrees, "faces": len(faces), "found": len(found), **right})
    return rows


def report(rows: list[dict[str, Any]]) -> Report:
    written = Report("turned_faces", "Turned faces of FER2013's PublicTest", rows=rows)
    table = Table(["turned by, degrees", "aligned", "as it is (--no-align)", "not found"], [])
    for row in rows:
        cells = [f"{100 * row[name] / max(row['found'], 1):.1f}" for name in ("aligned", "not_aligned")]
        table.rows.append([str(row["degrees"]), *cells, f"{row['faces'] - row['found']} of {row['faces']}"])
    written.add_table(table)
    written.add("Share of right decisions in %, by FER2013's labels, among the faces found.")
    return written


def main(arguments: list[str] | None = None) -> None:
    def report_on(data: FERDataModule, chosen: NDArray[np.int64]) -> Report:
        labels = [data.class_names[label] for label in data.class_ids(data.pack)[chosen]]
        return report(judge(Recognizer.load(), np.asarray(data.pack.images[chosen]), labels))

    publish_sample(__doc__, "turned_faces", arguments, report_on)


if __name__ == "__main__":
    main()
