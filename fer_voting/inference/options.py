"""The options of `python -m fer_voting.predict`, with their defaults: the one place for both the command and Python."""

from dataclasses import dataclass


@dataclass(frozen=True)
class PredictOptions:
    """How to find and recognise faces; `python -m fer_voting.predict --help` describes each option."""

    network: str | None = None
    """Source, as `fer_voting.networks.find` takes it; None: the network that ships."""
    output_dir: str = "outputs"
    runtime: str = "auto"
    form: str = "full"
    vote: str | None = None
    precision: str = "float32"
    device: str = "auto"
    threads: int | None = None
    batch_size: int = 64
    detector: str = "centerface"
    face_score: float = 0.35
    detect_size: str = "auto"
    margin: float | None = None
    align: bool | None = None
    """None: as the network's file says (`FaceInput`)."""
    aligned: bool = False
    boxes: str | None = None
    columns: str = "own"
    every: int = 1
    track: bool = False
    smooth: float | None = None
    """Seconds."""
    smooth_centred: bool = False
    draw: str | None = None
    explain: str | None = None
    summary: str | None = None
    show: bool = False

    def __post_init__(self) -> None:
        """Raises ValueError for a value out of range."""
        if self.every < 1:
            raise ValueError(f"`every` (={self.every}) must be at least 1")
        for name in ("smooth", "summary"):
            if getattr(self, name) is not None and not self.track:
                raise ValueError(f"--{name} needs --track: it follows each face through a video")
        if self.smooth_centred and self.smooth is None:
            raise ValueError("--smooth-centred needs --smooth SECONDS")
