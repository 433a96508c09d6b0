"""A live window for a camera: the newest frame with its faces, however slow the recognition."""

import threading
from collections.abc import Generator, Iterator

import numpy as np
from numpy.typing import NDArray

from fer_voting.inference.frames import Frame


class NewestFrames:
    """The newest frame of a camera each time one is asked for; those that nobody asked for in time are dropped.

    Args:
        frames: of the camera; read by a thread of its own, and closed there.
    """

    def __init__(self, frames: Generator[Frame]) -> None:
        self._frames = frames
        self._newest: Frame | None = None
        self._changed = threading.Condition()
        self._is_over = False
        self._error: Exception | None = None

    def __iter__(self) -> Iterator[Frame]:
        reader = threading.Thread(target=self._read, daemon=True)
        reader.start()
        try:
            while True:
                with self._changed:
                    while self._newest is None and not self._is_over:
                        self._changed.wait(0.1)  # returns now and then, for Ctrl-C
                    frame, self._newest = self._newest, None
                if frame is None:
                    if self._error is not None:
                        raise self._error
                    return
                yield frame
        finally:
            with self._changed:
                self._is_over = True
            reader.join(timeout=5)

    def _read(self) -> None:
        try:
            for frame in self._frames:
                with self._changed:
                    if self._is_over:
                        break
                    self._newest = frame
                    self._changed.notify()
        except Exception as error:  # raised where the frames are asked for
            self._error = error
        finally:
            self._frames.close()
            with self._changed:
                self._is_over = True
                self._changed.notify()


class Window:
    """A window that shows pictures, by tkinter.

    Attributes:
        is_closed: whether the user has closed it.

    Raises ValueError if there is no display, or this Python has no tkinter.
    """

    def __init__(self, title: str) -> None:
        try:
            import tkinter
        except ImportError as error:
            raise ValueError(
                "`show` needs tkinter, which this Python lacks (on Debian: apt install python3-tk)"
            ) from error
        try:
            self._root = tkinter.Tk()
        except tkinter.TclError as error:
            raise ValueError(f"`show` needs a display: {error}; --draw DIR writes a video instead") from error
        self._root.title(title)
        self._root.protocol("WM_DELETE_WINDOW", self.close)
        self._label = tkinter.Label(self._root)
        self._label.pack()
        self.is_closed = False

    def show(self, image: NDArray[np.uint8]) -> None:
        """Show uint8 `[H, W, 3]`, RGB, and answer what the user did to the window."""
        import PIL.Image
        import PIL.ImageTk

        self._shown = PIL.ImageTk.PhotoImage(PIL.Image.fromarray(image))  # tkinter keeps no reference
        self._label.configure(image=self._shown)
        self._root.update()

    def close(self) -> None:
        if not self.is_closed:
            self.is_closed = True
            self._root.destroy()
