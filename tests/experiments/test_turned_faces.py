"""Faces turned on photos: where they come to lie, and the counts of the report."""

from pathlib import Path

import numpy as np
import pytest

from experiments import turned_faces
from experiments.turned_faces import ANGLES, ENLARGED, SIDE, make_photo
from fer_voting.inference.frames import photo
from fer_voting.inference.recognizer import Recognizer


def test_a_photo_shows_the_face_turned():
    face = np.zeros((48, 48, 3), np.uint8)
    face[:24, :24] = 255  # upper left
    photo = make_photo(face, 90)
    middle, reach = SIDE // 2, ENLARGED * 12
    assert photo[middle - reach, middle + reach].min() > 250  # a quarter turn clockwise: upper right
    assert photo[middle - reach, middle - reach].max() < 5
    assert photo[2, 2].tolist() == list(turned_faces.GREY)


@pytest.mark.slow
def test_every_angle_is_counted(shared_data: Path):
    import PIL.Image

    image = PIL.Image.fromarray(photo(shared_data / "photos" / "happy-baby.jpeg")).crop((480, 120, 800, 480))
    faces = np.stack([np.asarray(image.resize((48, 48)))] * 2)
    rows = turned_faces.judge(Recognizer.load(), faces, ["happy", "sad"])
    assert [row["degrees"] for row in rows] == list(ANGLES)
    assert all(row["faces"] == row["found"] == 2 for row in rows)
    assert all(row["aligned"] == 1 for row in rows)  # the second label is wrong
    table = turned_faces.report(rows).markdown[0]
    assert "| 45 " in table
    assert " 50.0 " in table
    assert "0 of 2" in table
