"""Small data sets in the layouts that users have, with the defects that theirs have.

An image's red channel encodes its class (`shown_class`), so that a test detects a wrong label or crop in the pixels
themselves. The other channels differ from image to image.
"""

import csv
import json
from collections.abc import Iterable, Mapping
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from fer_voting.data.labels import CLASSES

SEVEN = CLASSES[:7]
SUFFIXES = (".jpg", ".JPG", ".png", ".jpeg", ".bmp", ".TIF")
BACKGROUND = (255, 255, 255)
AFFECTNET_IDS = (*CLASSES, "none", "uncertain", "non-face")
RAFDB_IDS = ("", "surprise", "fear", "disgust", "happy", "sad", "anger", "neutral")
FER2013_IDS = ("anger", "disgust", "fear", "happy", "sad", "surprise", "neutral")
FERPLUS_COLUMNS = (
    "neutral", "happiness", "surprise", "sadness", "anger", "disgust", "fear", "contempt", "unknown", "NF",
)  # fmt: skip


def class_image(label: str, number: int, side: int = 32) -> Image.Image:
    """An image of a class; `label` may also be none, uncertain or non-face."""
    blocks = np.random.default_rng((AFFECTNET_IDS.index(label), number)).integers(0, 256, (4, 4, 2))
    pixels = np.empty((side, side, 3), np.uint8)
    pixels[..., 0] = 20 * AFFECTNET_IDS.index(label) + 20
    pixels[..., 1:] = np.kron(blocks, np.ones((side // 4, side // 4, 1)))
    return Image.fromarray(pixels)


def shown_class(image: NDArray[np.uint8]) -> str:
    """The class that a packed image [S, S, 3] shows."""
    return AFFECTNET_IDS[round((float(image[..., 0].mean()) - 20) / 20)]


def save(path: Path, image: Image.Image) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    image.save(path, **({"quality": 95, "subsampling": 0} if path.suffix.lower() in (".jpg", ".jpeg") else {}))


def save_broken(path: Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(b"this is no image" * 20)


def save_truncated(path: Path, label: str, number: int) -> None:
    """A JPEG file whose head is whole, so that PIL's `verify` finds nothing amiss."""
    save(path, class_image(label, number, side=128))
    path.write_bytes(path.read_bytes()[: path.stat().st_size * 2 // 3])


def _numbered(counts: Mapping[str, int]) -> Iterable[tuple[int, str]]:
    """(number, label), the classes in turn."""
    return enumerate(label for label, count in counts.items() for _ in range(count))


# --- AffectNet ------------------------------------------------------------------------------------------------


def affectnet_release1(
    root: Path, counts: Mapping[str, Mapping[str, int]], header: bool = True, parent: str = ""
) -> tuple[list[dict[str, str]], Path]:
    """CSV files and whole images in which the face fills a box on a white background.

    Returns the rows of training.csv, to which a test may add, and the folder of the images.
    """
    images = root / parent / "Manually_Annotated_Images"
    rows = {}
    for part, csv_name in (("train", "training.csv"), ("val", "validation.csv")):
        rows[part] = []
        for number, label in _numbered(counts[part]):
            name = f"{number % 3}/{part}{number:04d}{SUFFIXES[number % len(SUFFIXES)]}"
            whole = Image.new("RGB", (80, 60), BACKGROUND)
            whole.paste(class_image(label, number + 1000 * (part == "val")), (40, 20))
            save(images / name, whole)
            box = (40, 20, 32, 32) if label != "non-face" else ("NULL", "NULL", -1, -1)
            rows[part].append(release1_row(name, label, box))
        write_release1_csv(root / parent / "Manually_Annotated_file_lists" / csv_name, rows[part], header)
    return rows["train"], images


def release1_row(name: str, label: str | int, box: tuple[object, ...]) -> dict[str, str]:
    expression = label if isinstance(label, int) else AFFECTNET_IDS.index(label)
    cells = (name, *box, ";".join(["1.5"] * 136), expression, "-0.1", "0.3")
    columns = (
        "subDirectory_filePath", "face_x", "face_y", "face_width", "face_height",
        "facial_landmarks", "expression", "valence", "arousal",
    )  # fmt: skip
    return dict(zip(columns, map(str, cells), strict=True))


def write_release1_csv(path: Path, rows: list[dict[str, str]], header: bool = True) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("w", newline="") as file:
        table = csv.writer(file)
        if header:
            table.writerow(rows[0])
        table.writerows(row.values() for row in rows)


def affectnet_release2(root: Path, counts: Mapping[str, Mapping[str, int]], val_name: str = "val_set") -> None:
    """Cropped images; the label files hold strings and numbers in turn, and ids restart in each part."""
    for part, folder in (("train", root / "train_set"), ("val", root / val_name)):
        (folder / "annotations").mkdir(parents=True)
        for number, label in _numbered(counts[part]):
            save(folder / "images" / f"{number}.jpg", class_image(label, number + 1000 * (part == "val")))
            expression = AFFECTNET_IDS.index(label)
            np.save(folder / "annotations" / f"{number}_exp.npy", str(expression) if number % 2 else expression)
            np.save(folder / "annotations" / f"{number}_val.npy", "-0.25")
            np.save(folder / "annotations" / f"{number}_aro.npy", "0.5")


def affectnet_release3(root: Path, counts: Mapping[str, Mapping[str, int]]) -> None:
    for part, name in (("train", "train_set"), ("val", "validation_set")):
        folder = root / "human_annotated" / name
        (folder / "annotations").mkdir(parents=True)
        for number, label in _numbered(counts[part]):
            save(folder / "images" / f"{number}.jpg", class_image(label, number + 1000 * (part == "val")))
            annotation = {"human-label": AFFECTNET_IDS.index(label), "soft-label": [0.125] * 8, "meta-data": {}}
            (folder / "annotations" / f"{number}.json").write_text(json.dumps(annotation))


def class_folders(root: Path, counts: Mapping[str, Mapping[str, int]], folder_names: Mapping[str, str]) -> None:
    """`<part>/<class folder>/<number>.*` for each part of `counts`; `folder_names`: class -> folder."""
    for place, (part, classes) in enumerate(counts.items()):
        for number, label in _numbered(classes):
            name = f"{number:04d}{SUFFIXES[number % len(SUFFIXES)]}"
            save(root / part / folder_names[label] / name, class_image(label, number + 1000 * place))


# --- RAF-DB ---------------------------------------------------------------------------------------------------


def rafdb_official(root: Path, counts: Mapping[str, Mapping[str, int]], kind: str = "aligned") -> Path:
    """Returns the label list, to which a test may add."""
    lines = []
    for part, digits in (("train", 5), ("test", 4)):
        for number, label in _numbered(counts[part]):
            stem = f"{part}_{number + 1:0{digits}d}"
            ending = "_aligned.jpg" if kind == "aligned" else ".jpg"
            save(root / "Image" / kind / (stem + ending), class_image(label, number + 1000 * (part == "test")))
            lines.append(f"{stem}.jpg {RAFDB_IDS.index(label)}\n")
    path = root / "EmoLabel" / "list_patition_label.txt"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join(lines))
    return path


# --- FER2013 and FER+ -----------------------------------------------------------------------------------------


def grey_pixels(label: str, number: int) -> str:
    """A csv cell: 48x48 grey values about the class's own."""
    noise = np.random.default_rng((CLASSES.index(label), number)).integers(-8, 9, 48 * 48)
    return " ".join(map(str, 20 * CLASSES.index(label) + 20 + noise))


def fer2013_csv(path: Path, counts: Mapping[str, Mapping[str, int]], spaces: bool = False) -> list[str]:
    """Returns the lines, header first. `spaces`: the header of icml_face_data.csv, whose columns are also swapped."""
    lines = ["emotion, Usage, pixels"] if spaces else ["emotion,pixels,Usage"]
    for usage, classes in counts.items():
        for number, label in _numbered(classes):
            cells = [str(FER2013_IDS.index(label)), grey_pixels(label, number + len(lines)), usage]
            lines.append(",".join([cells[0], cells[2], cells[1]] if spaces else cells))
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("\n".join(lines) + "\n")
    return lines


def fer2013_with_votes(root: Path) -> None:
    """fer2013.csv with a copy of its first training face as last of PublicTest, and fer2013new.csv beside it.

    FER+'s six votes are for FER2013's label, but every fourth row has eight for fear, and the row after it a draw.
    """
    counts = {"Training": dict.fromkeys(SEVEN, 12), "PublicTest": dict.fromkeys(SEVEN, 4)}
    lines = fer2013_csv(root / "fer2013.csv", counts)
    lines.append(lines[1].replace("Training", "PublicTest"))
    (root / "fer2013.csv").write_text("\n".join(lines) + "\n")
    words = {"happy": "happiness", "sad": "sadness"}
    table = [",".join(["Usage", "Image name", *FERPLUS_COLUMNS])]
    for number, line in enumerate(lines[1:]):
        emotion, _, usage = line.split(",")
        name = FER2013_IDS[int(emotion)]
        votes = dict.fromkeys(FERPLUS_COLUMNS, 0)
        votes[words.get(name, name)] = 6
        if number % 4 == 0:
            votes = dict.fromkeys(FERPLUS_COLUMNS, 0) | {"fear": 8}
        elif number % 4 == 1:
            votes[words.get(name, name)], votes["unknown"] = 5, 5
        table.append(",".join([usage, f"{number}.png", *map(str, votes.values())]))
    (root / "fer2013new.csv").write_text("\n".join(table) + "\n")


# --- sets of laboratories ---------------------------------------------------------------------------------------

CKPLUS_IDS = ("neutral", "anger", "contempt", "disgust", "fear", "happy", "sad", "surprise")
KDEF_CODES = dict(zip(SEVEN, ("NE", "HA", "SA", "SU", "AF", "DI", "AN"), strict=True))
JAFFE_CODES = KDEF_CODES | {"fear": "FE"}
SIX = SEVEN[1:]
OULU_NAMES = dict(zip(SIX, ("Happiness", "Sadness", "Surprise", "Fear", "Disgust", "Anger"), strict=True))


def _frames(root: Path, form: str, label: str, person: int, frames: Iterable[int]) -> None:
    """The images of a sequence: neutral until the last three, which show `label`."""
    numbers = list(frames)
    for place, frame in enumerate(numbers):
        shown = label if place >= len(numbers) - 3 else "neutral"
        save(root / form.format(frame), class_image(shown, 100 * person + frame))


def ckplus_official(root: Path, people: int = 4) -> None:
    """Sequences of six frames: each person has all seven expressions with a label, and an eighth without."""
    for person in range(people):
        for sequence, label in enumerate((*CKPLUS_IDS[1:], "neutral"), start=1):
            name = f"S{person + 5:03d}/{sequence:03d}/S{person + 5:03d}_{sequence:03d}_"
            _frames(root / "cohn-kanade-images", name + "{:08d}.png", label, 10 * person + sequence, range(1, 7))
            folder = (root / "Emotion" / name).parent
            folder.mkdir(parents=True)
            if sequence < 8:
                text = f"   {float(CKPLUS_IDS.index(label)):.7e}\n"  # as MATLAB writes it
                (root / "Emotion" / f"{name}00000006_emotion.txt").write_text(text)


def ckplus48(root: Path, people: int = 4) -> None:
    names = {label: label for label in CKPLUS_IDS[1:]} | {"happy": "happy", "sad": "sadness"}
    for person in range(people):
        for sequence, (label, folder) in enumerate(names.items(), start=1):
            stem = f"S{person + 5:03d}_{sequence:03d}_"
            _frames(root / folder, stem + "{:08d}.png", label, 10 * person + sequence, range(4, 7))


def kdef(root: Path, people: int = 4) -> None:
    """Both sessions of women and men, every expression straight and from the left."""
    for number in range(people):
        for session in "AB":
            person = f"{session}{'FM'[number % 2]}{number + 1:02d}"
            for label, code in KDEF_CODES.items():
                for angle in ("S", "HL", "FL"):
                    image = class_image(label if angle == "S" else "contempt", 100 * number + ord(session))
                    save(root / person / f"{person}{code}{angle}.JPG", image)


def jaffe(root: Path, people: int = 4) -> None:
    for number in range(people):
        for label, code in JAFFE_CODES.items():
            for take in (1, 2, 3):
                name = f"{'KNTUYM'[number // 2]}{'AL'[number % 2]}.{code}{take}.{39 + number}.tiff"
                save(root / name, class_image(label, 10 * number + take))


def oulu_casia(root: Path, people: int = 4, lights: Iterable[str] = ("VL/Strong", "VL/Weak", "NI/Strong")) -> None:
    for light in lights:
        for person in range(1, people + 1):
            for label, name in OULU_NAMES.items():
                shown = label if light == "VL/Strong" else "contempt"
                _frames(root / light / f"P{person:03d}" / name, "{:03d}.jpeg", shown, person, range(9, 15))


def expw(root: Path, faces: int = 70) -> Path:
    """Photos of two faces each, in the order of classes; returns the list, to which a test may add."""
    lines = []
    for number in range(0, faces, 2):
        photo = Image.new("RGB", (90, 60), BACKGROUND)
        for face, left in enumerate((5, 50)):
            label = SEVEN[(number + face) % 7]
            photo.paste(class_image(label, number + face), (left, 20))
            row = (f"happy_man_{number}.jpg", face, 20, left, left + 32, 52, 27.19, FER2013_IDS.index(label))
            lines.append(" ".join(map(str, row)) + "\n")
        save(root / "image" / "origin" / f"happy_man_{number}.jpg", photo)
    path = root / "label" / "label.lst"
    path.parent.mkdir(parents=True)
    path.write_text("".join(lines))
    return path
