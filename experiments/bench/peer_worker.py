"""Runs in the Python of the peer `fer`, which `experiments.bench.peer` starts: imports nothing of this project.

    python peer_worker.py FACES.npz OUT.json PHOTO...

FACES.npz: `images`, uint8 [N, 48, 48, 3]. Writes decisions and seconds, for the detectors Haar and MTCNN.
"""

import json
import sys
import time
from importlib.metadata import version
from typing import Any

import cv2
import numpy as np
from fer.fer import FER  # type: ignore[import-not-found]

REPEATS = 5


def main() -> None:
    faces_file, out, *photos = sys.argv[1:]
    images = np.load(faces_file)["images"]
    result: dict[str, Any] = {"version": version("fer"), "detectors": {}}
    for name, mtcnn in (("Haar", False), ("MTCNN", True)):
        try:
            detector = FER(mtcnn=mtcnn)
        except Exception as error:  # a detector whose package is missing
            result["detectors"][name] = {"error": str(error)[:200]}
            continue
        rows = {}
        for path in photos:
            photo = cv2.imread(path)
            boxes = [[int(value) for value in face["box"]] for face in detector.detect_emotions(photo)]
            seconds = []
            for _ in range(REPEATS):
                start = time.perf_counter()
                detector.detect_emotions(photo)
                seconds.append(time.perf_counter() - start)
            rows[path] = {"boxes": boxes, "seconds": min(seconds)}
        result["detectors"][name] = {"photos": rows}
    classifier, decisions = FER(mtcnn=False, offsets=(0, 0)), []  # the images are whole faces, without a margin
    start = time.process_time()
    for image in images:
        (found,) = classifier.detect_emotions(image, face_rectangles=[[0, 0, 48, 48]])
        decisions.append(max(found["emotions"], key=found["emotions"].get))
    result["faces"] = {"decisions": decisions, "processor_seconds": time.process_time() - start}
    with open(out, "w") as file:
        json.dump(result, file)


main()
