"""The faces that a network wants, as its file says."""

import pytest

from fer_voting.face_input import FaceInput


def test_values_come_back_and_what_is_missing_has_its_default():
    faces = FaceInput("grey", 0.2, False, "my_package:find")
    assert FaceInput.from_values(faces.to_values()) == faces
    assert FaceInput.from_values({"colour": "grey"}) == FaceInput("grey", 0.05, True, "centerface")


@pytest.mark.parametrize(
    ("values", "reason"),
    [
        ({"colour": "sepia"}, r"`colour` \(='sepia'\) must be rgb or grey"),
        ({"margin": "wide"}, r"`margin` \(='wide'\) must be a number"),
        ({"margin": float("nan")}, "`margin`"),
        ({"margin": True}, "`margin`"),
        ({"align": 1}, r"`align` \(=1\) must be true or false"),
        ({"detector": "a\nb"}, "`detector`"),
        ({"angle": 1}, "must be only these names, not 'angle': colour, margin, align, detector"),
        ([], "`faces` must be a mapping"),
    ],
)
def test_other_values_are_refused(values: object, reason: str):
    with pytest.raises(ValueError, match=reason):
        FaceInput.from_values(values)
