"""Why a network decides as it does: each crop's vote, and the class-activation map (Zhou et al. 2016, CVPR).

The last layer is linear and sees the mean of the last map, so a class's logit of a crop is the mean, over the crop's
map, of that layer's weights times the map, plus the bias. This product is the class-activation map of the crop; it
says where the logit comes from, exactly. The ten maps are laid back to where their crops were cut out of the face,
the mirrored ones mirrored back, and averaged where they overlap.

Shapes: V crops of the face, K classes, S x S pixels a face as the network takes it.
"""

import warnings
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from fer_voting.inference.recognizer import Recognition, Recognizer
from fer_voting.system.packages import whole_package
from fer_voting.system.text import escape_mathtext, shortened

if TYPE_CHECKING:  # torch takes seconds to import
    from fer_voting.models import VotingResNet18

Rectangle = tuple[int, int, int, int]
"""left, top, right, bottom in pixels of the face"""


@dataclass(frozen=True, eq=False)
class Explanation:
    """Where the logits of one face come from."""

    recognition: Recognition
    """Recognition of the one face."""
    face: NDArray[np.uint8]
    """`[S, S, 3]`, RGB, as the network sees it: grey if it turns faces grey."""
    crops: list[NDArray[np.uint8]]
    """V images `[h, w, 3]`: the part of the face in each crop, mirrored if the network sees it mirrored."""
    rectangles: list[Rectangle]
    """Where each crop lies in the face."""
    crop_maps: NDArray[np.float32]
    """`[V, K, h', w']`, in logits: the mean over a crop's map, plus the bias, is the crop's logit of the class."""
    maps: NDArray[np.float32]
    """`[K, S, S]`, in logits: the crops' maps in the face's pixels, averaged where they overlap."""
    coverage: NDArray[np.int64]
    """`[S, S]`: how many crops cover a pixel."""


def explain(recognizer: Recognizer, face: NDArray[np.uint8]) -> Explanation:
    """The explanation of one face, of any size, as `recognizer` takes it.

    Raises ValueError for a network that PyTorch does not run (an exported file) or that does not end in a mean over
    its last map and a linear layer.
    """
    import torch
    import torch.nn.functional as F

    from fer_voting.models.images import as_grey

    recognizer = recognizer.in_torch
    net = explainable_network(recognizer)
    runtime: Any = recognizer.runtime
    prepared = np.array(recognizer.prepare(face))
    if runtime.faces.colour == "grey":
        prepared = as_grey(torch.from_numpy(prepared)).numpy()
    last_maps: list[torch.Tensor] = []
    with runtime.lock:  # other threads' maps come by the hook too
        hook = net.backbone.avgpool.register_forward_pre_hook(lambda _, inputs: last_maps.append(inputs[0].detach()))
        try:
            recognition = recognizer.classify(prepared[None])
        finally:
            hook.remove()
    with torch.inference_mode():
        weight = net.backbone.fc.weight.detach()[: len(recognition.class_names), :, None, None]
        crop_maps = F.conv2d(last_maps[0].float(), weight).cpu().numpy()
    size = len(prepared)
    rectangles, mirrored = crop_rectangles(net.split, size)
    crops = [
        prepared[top:bottom, left:right][:, ::-1] if mirror else prepared[top:bottom, left:right]
        for (left, top, right, bottom), mirror in zip(rectangles, mirrored, strict=True)
    ]
    sums, coverage = np.zeros((len(recognition.class_names), size, size)), np.zeros((size, size), np.int64)
    for crop_map, (left, top, right, bottom), mirror in zip(crop_maps, rectangles, mirrored, strict=True):
        upright = crop_map[:, :, ::-1] if mirror else crop_map
        rows, columns = _shares(bottom - top, upright.shape[1]), _shares(right - left, upright.shape[2])
        sums[:, top:bottom, left:right] += rows @ upright @ columns.T
        coverage[top:bottom, left:right] += 1
    maps = (sums / np.maximum(coverage, 1)).astype(np.float32)
    return Explanation(recognition, prepared, crops, rectangles, crop_maps, maps, coverage)


def explainable_network(recognizer: Recognizer) -> "VotingResNet18":
    """The network that `recognizer` runs, in PyTorch. Raises ValueError if `explain` cannot explain it."""
    with whole_package():
        from fer_voting.inference.runtime import TorchRuntime
        from fer_voting.models import VotingResNet18

    runtime = recognizer.in_torch.runtime
    if not isinstance(runtime, TorchRuntime):
        raise ValueError(
            "an exported file cannot be explained, because it lacks the last map: give a run or a checkpoint"
        )
    if runtime.network.vote.needs_full_map:
        raise ValueError(
            f"the {runtime.vote} vote cannot be explained, because it leaves crops out: choose another vote"
        )
    net = runtime.network.net
    if not runtime.class_names:
        raise ValueError(f"{' and '.join(runtime.number_names)} cannot be explained: the maps are of classes")
    if not isinstance(net, VotingResNet18):
        name = type(getattr(net, "backbone", net)).__name__
        raise ValueError(f"a {name} cannot be explained: class-activation maps need the paper's ResNet-18")
    return net


def _shares(pixels: int, cells: int) -> NDArray[np.float64]:
    """Overlap of each pixel with each cell, along one axis: `[pixels, cells]`, rows sum to 1.

    The product with a line of cells is a line of pixels with the same mean.
    """
    starts, cell = np.arange(pixels)[:, None] / pixels, np.arange(cells)[None] / cells
    return pixels * (np.minimum(starts + 1 / pixels, cell + 1 / cells) - np.maximum(starts, cell)).clip(min=0)


def crop_rectangles(split: str, size: int) -> tuple[list[Rectangle], list[bool]]:
    """Where the crops of a face of `size` x `size` pixels lie, and which of them are mirrored."""
    from fer_voting.models.crops import crop_corners, crop_side
    from fer_voting.models.resnet import STAGES

    if split == "baseline":
        return [(0, 0, size, size)], [False]
    halvings = 0 if split == "input" else list(STAGES).index(split)  # the first module keeps the image's sides
    map_side = -(-size // 2**halvings)
    side = crop_side(map_side)
    rectangles, mirrored = [], []
    for mirror in (False, True):
        for top, left in crop_corners(map_side, map_side, side, side):
            left = map_side - side - left if mirror else left
            edges = (left, top, left + side, top + side)
            rectangles.append(tuple(round(edge * size / map_side) for edge in edges))
            mirrored.append(mirror)
    return rectangles, mirrored


def draw_explanation(path: Path, explanation: Explanation, title: str = "") -> None:
    """Write one picture: the face, the decision's map laid over it, and every crop with its vote."""
    from matplotlib.figure import Figure

    recognition = explanation.recognition
    class_names = [escape_mathtext(each) for each in recognition.class_names]
    name, chosen = class_names[recognition.class_ids[0]], int(recognition.class_ids[0])
    logits = recognition.crop_logits[0].astype(np.float64)
    odds = np.exp(logits - logits.max(axis=1, keepdims=True))
    probabilities = odds / odds.sum(axis=1, keepdims=True)
    crops = len(explanation.crops)
    columns = max(-(-crops // 2), 1)
    figure = Figure(figsize=(4.6 + 1.35 * columns, 3.4), layout="constrained")
    left, right = figure.subfigures(1, 2, width_ratios=[4.6, 1.35 * columns], squeeze=False)[0]
    face_axes, map_axes = left.subplots(1, 2)
    face_axes.imshow(explanation.face)
    face_axes.set_title(f"{name} {recognition.confidences[0]:.0%}", fontsize=10)
    heat = explanation.maps[chosen]
    limit = float(np.abs(heat).max()) or 1.0
    map_axes.imshow(explanation.face.mean(axis=2), cmap="gray")
    overlay = map_axes.imshow(heat, cmap="RdBu_r", vmin=-limit, vmax=limit, alpha=0.55, interpolation="bilinear")
    map_axes.set_title(f"class-activation map of {name}", fontsize=10)
    left.colorbar(overlay, ax=[face_axes, map_axes], location="bottom", shrink=0.6, label="logits")
    axes: Any = right.subplots(2 if crops > 1 else 1, columns, squeeze=False)
    for position, crop in enumerate(explanation.crops):
        axis = axes.flat[position]
        axis.imshow(crop)
        vote = int(logits[position].argmax())
        agrees = vote == chosen
        axis.set_title(
            f"{class_names[vote]} {probabilities[position, vote]:.0%}",
            fontsize=8,
            color="black" if agrees else "firebrick",
        )
        for spine in axis.spines.values():
            spine.set(color="black" if agrees else "firebrick", linewidth=1 if agrees else 2)
    for axis in [face_axes, map_axes, *axes.flat]:
        axis.set_xticks([])
        axis.set_yticks([])
    votes = f"{round(recognition.agreement[0] * crops)} of {crops} crops vote {name}"
    figure.suptitle(f"{escape_mathtext(shortened(title))}: {votes}" if title else votes, fontsize=10)
    path.parent.mkdir(parents=True, exist_ok=True)
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="Glyph .* missing from font")  # a name in a script that it lacks
        figure.savefig(path, dpi=110)
