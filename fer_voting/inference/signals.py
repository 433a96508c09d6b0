"""Videos as signals: the probabilities of each tracked face averaged in time, and the seconds of each class.

A face's samples are the frames in which it was found, at the times t_1 < t_2 < … of the video, with probabilities p_i.

Smoothing, with a window of W seconds:

    causal     q_i = mean of p_j over all j with t_i - W < t_j <= t_i
    centred    q_i = mean of p_j over all j with t_i - W/2 <= t_j <= t_i + W/2

Every sample counts the same, at any frame rate; what lies in a gap, where the face was not found, does not count.
"""

import csv
from collections import defaultdict, deque
from collections.abc import Iterable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fer_voting.inference.frames import Unreadable
from fer_voting.inference.pipeline import RecognizedFrame
from fer_voting.inference.recognizer import Recognition
from fer_voting.system.text import csv_safe, escape_mathtext, fitting


class Smoothing:
    """Averages the probabilities of each face of a video in time; photos and what is unreadable pass as they are.

    Numbers (valence) are averaged in the same way. The decisions and confidences are those of the averages; the crops'
    logits stay those of the frame.

    Args:
        seconds: W.
        centred: the window reaches to both sides. The frames then come half a window later.

    Raises ValueError if `seconds` is not positive.
    """

    def __init__(self, seconds: float, centred: bool = False) -> None:
        if not 0 < seconds < float("inf"):
            raise ValueError(f"`smooth` (={seconds}) must be a number of seconds greater than 0")
        self.before, self.after = (seconds / 2, seconds / 2) if centred else (seconds, 0.0)
        self.centred = centred

    def __call__(self, items: Iterable[RecognizedFrame | Unreadable]) -> Iterator[RecognizedFrame | Unreadable]:
        """The same items in the same order, tracked faces with averaged probabilities."""
        samples: dict[int, deque[tuple[float, NDArray[np.float32]]]] = defaultdict(deque)
        waiting: deque[RecognizedFrame | Unreadable] = deque()
        video: tuple[str, str] | None = None
        interrupt = None
        iterator = iter(items)
        while True:
            try:
                item = next(iterator, None)
            except KeyboardInterrupt as error:  # what waits comes first
                item, interrupt = None, error
            if item is None:
                break
            frame = item.frame if isinstance(item, RecognizedFrame) else None
            time_s = None if frame is None else frame.time_s
            if frame is not None and (time_s is None or (frame.input, frame.output) != video):
                yield from self._ready(waiting, samples)
                samples.clear()
                video = (frame.input, frame.output)
            waiting.append(item)
            if isinstance(item, RecognizedFrame) and time_s is not None:
                for face_id, values in zip(item.face_ids, values_of(item.faces), strict=True):
                    samples[face_id].append((time_s, values))
                yield from self._ready(waiting, samples, time_s)
        yield from self._ready(waiting, samples)
        if interrupt is not None:
            raise interrupt

    def _ready(
        self,
        waiting: deque[RecognizedFrame | Unreadable],
        samples: dict[int, deque[tuple[float, NDArray[np.float32]]]],
        now_s: float = float("inf"),
    ) -> Iterator[RecognizedFrame | Unreadable]:
        """Takes those of the waiting items whose window was seen whole, at the time `now_s` of the last frame."""
        while waiting:
            item = waiting[0]
            if isinstance(item, RecognizedFrame) and (time_s := item.frame.time_s) is not None:
                # A frame at the window's very end may still come.
                if self.centred and _seconds(time_s, now_s) <= self.after:
                    return
                yield self._averaged(item, time_s, samples)
            else:
                yield item
            waiting.popleft()

    def _averaged(
        self, item: RecognizedFrame, time_s: float, samples: dict[int, deque[tuple[float, NDArray[np.float32]]]]
    ) -> RecognizedFrame:
        averages = values_of(item.faces).copy()
        for row, face_id in enumerate(item.face_ids):
            own = samples[face_id]
            while (age := _seconds(own[0][0], time_s)) > self.before or (not self.centred and age == self.before):
                own.popleft()
            averages[row] = np.mean([p for t, p in own if _seconds(time_s, t) <= self.after], axis=0)
        classes = len(item.faces.class_names)
        numbers = None if item.faces.numbers is None else averages[:, classes:]
        return replace(item, faces=replace(item.faces, probabilities=averages[:, :classes], numbers=numbers))


def _seconds(start_s: float, end_s: float) -> float:
    """From start to end, to a microsecond: 0.24 - 0.2 is not 0.04, and a frame at a window's edge must not be in or out
    by rounding."""
    return round(end_s - start_s, 6)


def values_of(faces: Recognition) -> NDArray[np.float32]:
    """The values of N faces that have a course in time: probabilities, then numbers, `[N, K + n]`."""
    return faces.probabilities if faces.numbers is None else np.hstack([faces.probabilities, faces.numbers])


class Signals:
    """Collects the faces of videos, and writes for each video a table and a plot of each person.

    `<video>-seconds.csv`: person (the face's number), first_s, last_s, seconds in which the person was found, and the
    seconds of each class; of numbers, such as valence, `mean_valence`, over the same seconds. A frame counts from its
    time to the next frame's; the last one as long as the one before.
    `<video>-person<number>.png`: the probabilities and the numbers over time; of two numbers also the way in their
    plane, as of valence and arousal in Russell's circumplex.

    Args:
        folder: where they go; made if it does not exist.
        class_names: K names.
        number_names: n names.
    """

    def __init__(self, folder: Path, class_names: tuple[str, ...], number_names: tuple[str, ...] = ()) -> None:
        self.folder, self.class_names, self.number_names = folder, class_names, number_names
        self._output: str | None = None
        self._times: list[float] = []
        self._samples: dict[int, list[tuple[int, NDArray[np.float32]]]] = defaultdict(list)

    def add(self, item: RecognizedFrame) -> None:
        """Take the next frame. The first frame of a video writes the files of the video before. Photos are left out."""
        if item.frame.time_s is None:
            return
        if item.frame.output != self._output:
            self.close()
            self._output = item.frame.output
        for face_id, values in zip(item.face_ids, values_of(item.faces), strict=True):
            self._samples[face_id].append((len(self._times), values))
        self._times.append(item.frame.time_s)

    def close(self) -> None:
        """Write the last video's files. Raises OSError if they cannot be written."""
        output, times, samples = self._output, np.array(self._times), self._samples
        self._output, self._times, self._samples = None, [], defaultdict(list)
        if output is None or not samples:
            return
        lasting = np.diff(times)
        lasting = np.append(lasting, lasting[-1] if len(lasting) else 0.0).clip(min=0)
        classes, means = len(self.class_names), [f"mean_{name}" for name in self.number_names]
        rows: list[list[object]] = [["person", "first_s", "last_s", "seconds", *self.class_names, *means]]
        for face_id, found in samples.items():
            frames, signals = np.array([frame for frame, _ in found]), np.stack([values for _, values in found])
            spans = lasting[frames]
            seconds = list(np.bincount(signals[:, :classes].argmax(1), spans, classes)) if classes else []
            weights = spans if spans.any() else None  # a video of one frame lasts no time
            cells = [times[frames[0]], times[frames[-1]] + spans[-1], spans.sum(), *seconds]
            cells += list(np.average(signals[:, classes:], 0, weights))
            rows.append([face_id, *(f"{value:.3f}" for value in cells)])
            self._plot(fitting(self.folder / f"{output}-person{face_id}.png"), face_id, times, frames, signals)
        table = fitting(self.folder / f"{output}-seconds.csv")
        table.parent.mkdir(parents=True, exist_ok=True)
        with table.open("w", encoding="utf-8", newline="") as file:
            csv.writer(file, lineterminator="\n").writerows([csv_safe(cell) for cell in row] for row in rows)

    def _plot(
        self,
        path: Path,
        face_id: int,
        times: NDArray[np.float64],
        frames: NDArray[np.int64],
        signals: NDArray[np.float32],
    ) -> None:
        """Lines of the signals `[F, K + n]`, broken where the person was not found."""
        from matplotlib.figure import Figure

        span, names = np.arange(frames[0], frames[-1] + 1), [*self.class_names, *self.number_names]
        values = np.full((len(span), len(names)), np.nan)
        values[frames - frames[0]] = signals
        classes = len(self.class_names)
        panels = [(slice(classes), "probability", (0, 1)), (slice(classes, None), "", (-1.05, 1.05))]
        panels = [panel for panel in panels if names[panel[0]]]
        has_plane = len(self.number_names) == 2
        figure = Figure(figsize=(9 + 3.6 * has_plane, 3.2 * len(panels)), layout="constrained")
        left: Any = figure
        if has_plane:
            left, right = figure.subfigures(1, 2, width_ratios=[9, 3.6], squeeze=False)[0]
            self._plane(right.subplots(), times[span], values[:, classes:])
        for axes, (chosen, label, limits) in zip(left.subplots(len(panels), squeeze=False)[:, 0], panels, strict=True):
            for name, line in zip(names[chosen], values.T[chosen], strict=True):
                axes.plot(times[span], line, label=escape_mathtext(name), marker="." if len(span) < 50 else None)
            axes.set(xlabel="time (s)", ylabel=label, ylim=limits, title=f"person {face_id}")
            axes.legend(loc="center left", bbox_to_anchor=(1, 0.5), frameon=False)
        path.parent.mkdir(parents=True, exist_ok=True)
        figure.savefig(path, dpi=110)

    def _plane(self, axes: Any, times: NDArray[np.float64], numbers: NDArray[np.floating[Any]]) -> None:
        """The way of two numbers `[F, 2]` in the unit circle, coloured by time."""
        from matplotlib.patches import Circle

        axes.add_patch(Circle((0, 0), 1, fill=False, color="grey"))
        axes.plot(*numbers.T, color="lightgrey", linewidth=1, zorder=1)
        points = axes.scatter(*numbers.T, c=times, s=12, zorder=2)
        axes.axhline(0, color="lightgrey", linewidth=0.8, zorder=0)
        axes.axvline(0, color="lightgrey", linewidth=0.8, zorder=0)
        across, up = (escape_mathtext(name) for name in self.number_names)
        axes.set(xlabel=across, ylabel=up, xlim=(-1.1, 1.1), ylim=(-1.1, 1.1), aspect="equal")
        axes.figure.colorbar(points, ax=axes, location="bottom", label="time (s)")
