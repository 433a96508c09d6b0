"""Data sets whose files' paths say what the images show: a regular expression reads them (conf/dataset/kdef.yaml)."""

import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fer_voting.data.files import Layout, SampledDataModule, part_of
from fer_voting.data.formats import is_image
from fer_voting.data.groups import AUTO
from fer_voting.data.index import Index, LeftOut, Problem, Sample, files_below, folded
from fer_voting.data.labels import canonical_or_own
from fer_voting.data.pack import Pack
from fer_voting.data.tables import open_text, small_file
from fer_voting.system.text import counted

Label = str | LeftOut | ValueError
"""A class, why its images are left out, or what is wrong with them."""


class NamedDataModule(SampledDataModule):
    """Images whose paths below `root` say their class, their person and their place in a sequence.

    Args:
        pattern: regular expression that is searched for in an image's path, in any case of its letters. Its named
            groups are the annotations: `label`; `person`, by which `dataset.group=auto` keeps people apart; `part`
            (train, val or test); `frame`, a number. Images whose paths differ only in the frame are a sequence.
        label_files: regular expression for the paths of text files, each with the label of the images that have the
            same `sequence`, a group of both expressions. Images without such a file are left out.
        labels: what the path or the file says -> class, or None to leave the images out. Without any, it is the class.
        keep: named group -> what it may be; other images are left out.
        last_frames: frames of each sequence that show its class; None: all.
        neutral_frames: frames at the beginning of each sequence that are read as neutral.
        expected: class -> published number of images; a difference is a warning.
        sampled: see SampledDataModule.

    Raises ValueError for an expression that can't be read or lacks a group, and for options that can't be.
    """

    def __init__(
        self,
        *,
        pattern: str | None,
        label_files: str | None = None,
        labels: Mapping[Any, str | None] | None = None,
        keep: Mapping[str, Sequence[Any] | None] | None = None,
        last_frames: int | None = None,
        neutral_frames: int = 0,
        expected: Mapping[str, int] | None = None,
        **sampled: Any,
    ) -> None:
        if not pattern:
            raise ValueError(
                "dataset.pattern is not set: a regular expression for the images' paths below dataset.root"
            )
        if (last_frames is not None and last_frames < 1) or neutral_frames < 0:
            raise ValueError(
                f"dataset.last_frames={last_frames} must be null or at least 1, and "
                f"dataset.neutral_frames={neutral_frames} at least 0"
            )
        if neutral_frames and last_frames is None:
            raise ValueError(
                f"dataset.neutral_frames={neutral_frames} needs dataset.last_frames: with null, all show the class"
            )
        self.kept = {
            name: {folded(str(word)) for word in words} for name, words in (keep or {}).items() if words is not None
        }
        of_frames = ["frame"] * (last_frames is not None)
        said_by = "label" if label_files is None else "sequence"
        self.pattern = _compiled("pattern", pattern, [said_by, *self.kept, *of_frames])
        self.label_files = None if label_files is None else _compiled("label_files", label_files, ["sequence"])
        self.labels = {folded(str(text)): label for text, label in (labels or {}).items()}
        self.last_frames, self.neutral_frames = last_frames, neutral_frames
        layout = Layout(
            "names",
            f"images whose paths fit {pattern}",
            find=lambda root: root if any(self._match(root, entry.path) for entry in files_below(root)) else None,
            read=lambda base, _: self.read(base),
            sources=lambda base: [base],
            expected={"train": expected} if expected else {},
            options=repr((pattern, label_files, labels, keep, last_frames, neutral_frames)),
            takes_all=True,
        )
        self.layouts = (*self.layouts, layout)
        super().__init__(**sampled)

    def groups(self, pack: Pack, usable: NDArray[np.bool_]) -> list[str] | None:
        if self.group == AUTO:
            named = pack.key["layout"] == "names" and "person" in self.pattern.groupindex
            self.group = self.pattern.pattern if named else None
        return super().groups(pack, usable)

    def _match(self, base: Path, path: str) -> re.Match[str] | None:
        return self.pattern.search(_below(base, path)) if is_image(path) else None

    def read(self, base: Path) -> Index:
        """Every image below `base` that fits the pattern, named by its path."""
        index, sequences, others = Index(), dict[str, list[tuple[Path, re.Match[str]]]](), list[str]()
        labels = self._read_label_files(base, index)
        unused = {path for path, _ in labels.values()}
        for entry in files_below(base):
            if not is_image(entry.path):
                continue
            if (match := self._match(base, entry.path)) is None:
                others.append(_below(base, entry.path))
                continue
            unused.discard(labels.get(_group(match, "sequence"), (None,))[0])
            if wrong := [name for name, words in self.kept.items() if match[name] and folded(match[name]) not in words]:
                index.add(LeftOut(f"{wrong[0]} {match[wrong[0]]}"), Path(entry.path))
            else:
                sequences.setdefault(_sequence(match), []).append((Path(entry.path), match))
        if others:
            images = counted(len(others), "image", "is/are")
            index.notes.append(f"{images} not named as the others, and not read, e.g. {others[0]}")
        for frames in sequences.values():
            frames.sort(key=lambda frame: _in_order(_group(frame[1], "frame")))
            before = 0 if self.last_frames is None else len(frames) - self.last_frames
            for place, (path, match) in enumerate(frames):
                label = self._label(match, labels)
                if isinstance(label, str) and place < before:
                    label = "neutral" if place < self.neutral_frames else LeftOut("other frames")
                index.add(_outcome(base, path, match, label), path)
        for path in sorted(unused):
            index.add(Problem("missing", str(path), "there is no image of its sequence"))
        return index

    def _read_label_files(self, base: Path, index: Index) -> dict[str, tuple[Path, Label]]:
        """Sequence -> a file of it, and what it says."""
        labels: dict[str, tuple[Path, Label]] = {}
        if self.label_files is None:
            return labels
        for entry in files_below(base):
            if match := self.label_files.search(_below(base, entry.path)):
                path, sequence = Path(entry.path), _group(match, "sequence")
                index.use(path)
                try:
                    with open_text(small_file(path)) as file:
                        label = self._class(_whole(file.read().strip()))
                except (OSError, ValueError) as error:
                    label = ValueError(f"{path}: {error}")
                if labels.setdefault(sequence, (path, label))[1] != label:
                    label = ValueError(f"{labels[sequence][0]} and {path} differ")
                labels[sequence] = path, label
        return labels

    def _label(self, match: re.Match[str], labels: Mapping[str, tuple[Path, Label]]) -> Label:
        if self.label_files is None:
            return self._class(_group(match, "label"))
        return labels.get(_group(match, "sequence"), (None, LeftOut("no label file")))[1]

    def _class(self, text: str) -> Label:
        if not self.labels:
            return canonical_or_own(text) if text else ValueError("it has no label")
        if (label := self.labels.get(folded(text), "")) == "":
            return ValueError(f"label {text[:40]!r} is none of {', '.join(self.labels)}")
        return LeftOut(f"label {text}") if label is None else canonical_or_own(label)


def _compiled(option: str, pattern: str, groups: Sequence[str]) -> re.Pattern[str]:
    try:
        compiled = re.compile(f"(?i:{pattern})")
    except re.error as error:
        raise ValueError(f"dataset.{option}={pattern} is no regular expression: {error}") from error
    if lacking := [name for name in groups if name not in compiled.groupindex]:
        raise ValueError(f"dataset.{option}={pattern} has no group (?P<{lacking[0]}>...), which the options need")
    return compiled


def _below(base: Path, path: str) -> str:
    return Path(path).relative_to(base).as_posix()


def _group(match: re.Match[str], name: str) -> str:
    """The text of a named group; "" if there is none."""
    return match.groupdict().get(name) or ""


def _sequence(match: re.Match[str]) -> str:
    """The path without the frame, which the images of a sequence share."""
    start, end = match.span("frame") if _group(match, "frame") else (len(match.string),) * 2
    return f"{match.string[:start]}/{match.string[end:]}"


def _in_order(number: str) -> tuple[int, str]:
    """Sorts numbers by value, whatever zeros they begin with."""
    digits = number.lstrip("0")
    return len(digits), digits


def _whole(text: str) -> str:
    """`5` for `5.0000000e+00`, as CK+ writes its labels; another text as it is."""
    try:
        return str(int(float(text))) if float(text).is_integer() else text
    except ValueError:
        return text


def _outcome(base: Path, path: Path, match: re.Match[str], label: Label) -> Sample | Problem | LeftOut:
    part = part_of(_group(match, "part")) if "part" in match.re.groupindex else "train"
    if part is None:
        label = ValueError(f"{_group(match, 'part')!r} is no part: train, val or test")
    if isinstance(label, ValueError):
        return Problem("label", str(path), str(label))
    return label if isinstance(label, LeftOut) else Sample(_below(base, str(path)), label, str(part), path)
