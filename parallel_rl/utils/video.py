"""Videos, written frame by frame."""

import os
import subprocess
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import numpy as np

from parallel_rl.utils.files import UNFINISHED_SUFFIX

GIF_FPS = 25
"""The highest frame rate of a GIF: of a faster one the file is large, and many players slow it down."""
EVEN = "pad=ceil(iw/2)*2:ceil(ih/2)*2,format=yuv420p"
"""A filter for players of H.264, which need even sizes and certain colors."""
PALETTES = "split[a][b];[a]palettegen=stats_mode=single[p];[b][p]paletteuse=new=1"
"""A filter that makes a palette for each frame of a GIF; a common palette would need all frames first."""


class Video:
    """An MP4 or a GIF that ffmpeg encodes frame by frame; no frame is kept. The complete file is renamed into place."""

    def __init__(self, path: str | os.PathLike[str], fps: float) -> None:
        """Store the path; the first frame starts the encoder.

        Args:
            path: of the video, an .mp4 or a .gif; its directory must exist.
            fps: frames a second.

        Raises:
            ValueError: another suffix.
        """
        self.path, self.fps = Path(path), fps
        if self.path.suffix not in {".mp4", ".gif"}:
            raise ValueError(f"a video must end in .mp4 or .gif, not {self.path.name!r}")
        self._aside = self.path.with_name(f".{self.path.stem}.{os.getpid()}{UNFINISHED_SUFFIX}{self.path.suffix}")
        self._encoder: subprocess.Popen[bytes] | None = None
        self._shape: tuple[int, ...] = ()

    def add(self, frame: Any) -> None:
        """Encode a frame: uint8 `(height, width, 3)`, all of one size.

        Raises:
            TypeError: it is not such an array.
            OSError: the file cannot be written, or the encoder failed.
        """
        if not (isinstance(frame, np.ndarray) and frame.dtype == np.uint8 and frame.ndim == 3 and frame.shape[2] == 3):
            what = f"an array {frame.dtype} {frame.shape}" if isinstance(frame, np.ndarray) else type(frame).__name__
            raise TypeError(f"a frame of a video is an array uint8 (height, width, 3), not {what}")
        if self._encoder is None:
            self._shape, self._encoder = frame.shape, self._start(*frame.shape[:2])
        if frame.shape != self._shape:
            raise TypeError(f"the frames of a video are of one size, not {self._shape} and {frame.shape}")
        assert self._encoder.stdin is not None
        try:
            self._encoder.stdin.write(frame.tobytes())
        except BrokenPipeError:
            self._finish(self._encoder)

    def _start(self, height: int, width: int) -> "subprocess.Popen[bytes]":
        from imageio_ffmpeg import get_ffmpeg_exe

        frames = ["-f", "rawvideo", "-pix_fmt", "rgb24", "-s", f"{width}x{height}", "-r", str(self.fps), "-i", "-"]
        try:
            self._aside.touch()
        except OSError as error:  # in one line; ffmpeg would write several
            error.filename = str(self.path)
            raise
        filters = EVEN if self.path.suffix == ".mp4" else f"fps={min(self.fps, GIF_FPS)},{PALETTES}"
        return subprocess.Popen(
            [get_ffmpeg_exe(), "-y", "-v", "error", *frames, "-vf", filters, str(self._aside)],
            stdin=subprocess.PIPE,
            stderr=subprocess.PIPE,
            start_new_session=True,  # Ctrl-C must not reach the encoder: it ends when there are no more frames
        )

    def _finish(self, encoder: "subprocess.Popen[bytes]") -> None:
        """Wait for the encoder.

        Raises:
            OSError: it failed.
        """
        self._encoder = None
        message = encoder.communicate()[1].decode(errors="replace").strip()
        if encoder.returncode:
            raise OSError(f"{self.path} cannot be encoded: {message or f'ffmpeg ended with {encoder.returncode}'}")

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Complete the file; after an error there is no file.

        Raises:
            OSError: the encoder failed.
        """
        try:
            if self._encoder is not None and error is None:
                self._finish(self._encoder)
                os.replace(self._aside, self.path)
            elif self._encoder is not None:
                self._encoder.kill()
                self._encoder.communicate()
        finally:
            self._aside.unlink(missing_ok=True)
