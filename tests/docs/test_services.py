"""The page on web services: its example answers requests of several threads."""

from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
from helpers.doc_pages import blocks
from helpers.train import REPO

from fer_voting import Recognizer
from fer_voting.inference.frames import photo

pytestmark = pytest.mark.slow


@pytest.mark.filterwarnings("ignore::DeprecationWarning")  # between the releases of Starlette, httpx and anyio
def test_the_example_answers(shared_data: Path):
    pytest.importorskip("httpx")
    client_module = pytest.importorskip("fastapi.testclient")
    (text,) = (block.text for block in blocks(REPO / "docs" / "services.md") if block.caption == "service.py")
    names: dict = {"__name__": "service"}
    exec(compile(text, "service.py", "exec"), names)
    paths = [shared_data / "photos" / name for name in ("astronaut.png", "grace_hopper.jpg", "happy-baby.jpeg")]
    recognizer = Recognizer.load()
    with client_module.TestClient(names["app"]) as client:

        def ask(path: Path):
            return client.post("/faces", content=path.read_bytes(), headers={"Content-Type": "image/jpeg"}).json()

        with ThreadPoolExecutor(4) as pool:
            answers = list(pool.map(ask, paths * 2))
        for path, answer in zip(paths * 2, answers, strict=True):
            (face,), (found,) = recognizer.detect(photo(path)), answer
            assert found["class"] == face.class_name
            np.testing.assert_allclose(found["box"], face.box, atol=0.01)
            assert found["confidence"] == pytest.approx(face.confidence, abs=1e-4)
        refused = client.post("/faces", content=b"no photo", headers={"Content-Type": "image/jpeg"})
        assert (refused.status_code, refused.json()["detail"]) == (415, "not a photo that can be read: it is no photo")
