"""The README's drawing of the method: `python docs/draw_idea.py` writes docs/images/idea.png.

Everything in it is what the network that ships computes for one drawn face: its feature map after module 1, the ten
crops of that map, the class and probability that each crop votes for, and the mean that decides.
"""

from pathlib import Path

import matplotlib as mpl
import numpy as np
import torch
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle

from fer_voting.data.faces.renderer import render_faces
from fer_voting.models.crops import crop_corners, crop_side, ten_crops
from fer_voting.models.images import as_grey, normalise
from fer_voting.networks import load_network

FILE = Path(__file__).parent / "images/idea.png"
FACE = {"seed": 0, "indices": [202], "expressions": ["surprise"], "people": [202]}
INK, MUTED, YES, NO = "#111112", "#55585e", "#0072B2", "#D55E00"
OUTLINES = ("#56B4E9", "#E69F00", "#009E73", "#CC79A7", "#F0E442")
WIDTH, HEIGHT = 8.8, 2.86  # inches, which are also the coordinates of the drawing


def compute() -> tuple[np.ndarray, torch.Tensor, torch.Tensor, tuple[str, ...]]:
    """A face uint8 [48, 48, 3], its feature map [1, C, 48, 48], the crops' logits [10, 7] and the classes."""
    network = load_network("fer_voting")
    maps: list[torch.Tensor] = []
    module1 = network.net.backbone.layer1
    module1.register_forward_hook(lambda module, arguments, output: maps.append(output), prepend=True)
    (face,) = render_faces(**FACE)
    with torch.inference_mode():
        (logits,) = network.net.eval()(normalise(as_grey(torch.from_numpy(face)).permute(2, 0, 1)[None]))
    return face, maps[0], logits, network.info.class_names


def draw() -> Figure:
    face, maps, logits, class_names = compute()
    probabilities, mean = logits.softmax(dim=1).numpy(), logits.mean(dim=0).softmax(dim=0).numpy()
    winner = int(mean.argmax())
    side = maps.shape[-1]
    strength = maps.mean(dim=1, keepdim=True)
    shades = {"cmap": "Greys_r", "vmin": float(strength.min()), "vmax": float(strength.max())}

    figure = Figure(figsize=(WIDTH, HEIGHT), facecolor="white")

    def panel(left: float, bottom: float, width: float, height: float) -> Axes:
        axes = figure.add_axes((left / WIDTH, bottom / HEIGHT, width / WIDTH, height / HEIGHT))
        axes.set(xticks=[], yticks=[])
        return axes

    def title(left: float, text: str, detail: str) -> None:
        figure.text(left / WIDTH, 2.65 / HEIGHT, text, fontsize=11, fontweight="bold", color=INK)
        figure.text(left / WIDTH, 2.45 / HEIGHT, detail, fontsize=9, color=MUTED)

    def arrow(left: float, right: float, text: str = "") -> None:
        canvas.annotate("", (right, 1.4), (left, 1.4), arrowprops={"arrowstyle": "-|>", "color": INK, "lw": 1.2})
        canvas.text((left + right) / 2, 1.5, text, fontsize=9, color=INK, ha="center", va="bottom")

    canvas = figure.add_axes((0, 0, 1, 1))
    canvas.set(xlim=(0, WIDTH), ylim=(0, HEIGHT))
    canvas.axis("off")

    title(0.1, "Image", "48 × 48 pixels")
    panel(0.1, 0.8, 1.2, 1.2).imshow(face)
    arrow(1.36, 2.02, "module 1")

    title(2.08, "Feature map", f"{side} × {side}, {maps.shape[1]} channels")
    axes = panel(2.08, 0.7, 1.4, 1.4)
    axes.imshow(strength[0, 0].numpy(), **shades)
    crop = crop_side(side)
    for (top, left), colour in zip(crop_corners(side, side, crop, crop), OUTLINES, strict=True):
        axes.add_patch(Rectangle((left - 0.5, top - 0.5), crop, crop, fill=False, edgecolor=colour, lw=1.6))
    arrow(3.54, 3.9)

    title(3.96, "Ten crops, ten votes", "each crop classified by modules 2 to 4")
    for index, (image, row) in enumerate(zip(ten_crops(strength)[0, :, 0].numpy(), probabilities, strict=True)):
        left, bottom = 3.96 + 0.62 * (index % 5), 1.68 - 1.12 * (index // 5)
        axes = panel(left, bottom, 0.56, 0.56)
        axes.imshow(image, **shades)
        for spine in axes.spines.values():
            spine.set(edgecolor=OUTLINES[index % 5], linewidth=1.8)
        vote = int(row.argmax())
        text = {"ha": "center", "va": "top", "fontsize": 9, "color": YES if vote == winner else NO}
        canvas.text(left + 0.28, bottom - 0.05, class_names[vote], **text)
        canvas.text(left + 0.28, bottom - 0.19, f"{100 * row[vote]:.0f} %", **text)
    canvas.text(3.96, 0.06, "second row: of the mirrored map", fontsize=9, color=MUTED)
    arrow(7.06, 7.36)

    title(7.48, "One decision", "mean of the votes")
    axes = panel(8.1, 0.55, 0.6, 1.75)
    colours = [YES if index == winner else "#b9bcc2" for index in range(len(class_names))]
    axes.barh(range(len(class_names)), mean, color=colours, height=0.7)
    axes.text(mean[winner] + 0.04, winner, f"{100 * mean[winner]:.0f} %", fontsize=9, color=YES, va="center")
    axes.set(ylim=(len(class_names) - 0.5, -0.5), xlim=(0, 1.5))  # room for the number
    axes.set_yticks(range(len(class_names)), class_names, fontsize=9)
    axes.tick_params(left=False)
    axes.get_yticklabels()[winner].set(color=YES, fontweight="bold")
    axes.spines[["top", "right", "bottom"]].set_visible(False)
    return figure


def main() -> None:
    with mpl.rc_context({"font.family": "DejaVu Sans", "image.interpolation": "nearest"}):
        draw().savefig(FILE, dpi=170, metadata={"Software": None})


if __name__ == "__main__":
    main()
