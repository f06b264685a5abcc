import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from parallel_rl.utils.video import Video


def frame_of(height: int = 31, width: int = 45, grey: int = 0) -> np.ndarray:
    return np.full((height, width, 3), grey, np.uint8)


def frames_in(path: Path) -> int:
    import imageio_ffmpeg

    return imageio_ffmpeg.count_frames_and_secs(str(path))[0]


@pytest.mark.parametrize("suffix", [".mp4", ".gif"])
def test_video_has_every_frame(tmp_path: Path, suffix: str) -> None:
    path = tmp_path / f"video{suffix}"
    with Video(path, 20) as video:
        for grey in range(0, 200, 10):
            video.add(frame_of(grey=grey))
    assert frames_in(path) == 20
    assert [*tmp_path.iterdir()] == [path]


def test_a_gif_of_a_fast_environment_has_every_second_frame(tmp_path: Path) -> None:
    path = tmp_path / "video.gif"
    with Video(path, 50) as video:
        for grey in range(0, 200, 10):
            video.add(frame_of(grey=grey))
    assert frames_in(path) == 10


@pytest.mark.parametrize(
    ("frame", "message"),
    [
        (None, "not NoneType"),
        (np.zeros((31, 45), np.uint8), r"not an array uint8 \(31, 45\)"),
        (np.zeros((31, 45, 3)), "not an array float64"),
        (frame_of(32), r"of one size, not \(31, 45, 3\) and \(32, 45, 3\)"),
    ],
)
def test_a_wrong_frame_is_an_error_and_leaves_no_file(tmp_path: Path, frame: Any, message: str) -> None:
    def film() -> None:
        with Video(tmp_path / "video.mp4", 30) as video:
            video.add(frame_of())
            video.add(frame)

    with pytest.raises(TypeError, match=message):
        film()
    assert not [*tmp_path.iterdir()]


def test_a_failing_encoder_is_an_error_with_its_reason(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """ffmpeg fails at its start; the old video stays."""
    path = tmp_path / "video.mp4"
    path.write_text("old")
    monkeypatch.setattr("parallel_rl.utils.video.EVEN", "no_such_filter")

    def film() -> None:
        with Video(path, 30) as video:
            for _ in range(1000):
                video.add(frame_of(100, 100))

    with pytest.raises(OSError, match=r"(?s)video\.mp4 cannot be encoded: .*no_such_filter"):
        film()
    assert path.read_text() == "old"
    assert [*tmp_path.iterdir()] == [path]


def test_a_file_that_cannot_be_written_is_one_line_that_names_it(tmp_path: Path) -> None:
    def film() -> None:
        with Video(tmp_path / "nowhere" / "video.gif", 30) as video:
            video.add(frame_of())

    with pytest.raises(FileNotFoundError) as told:
        film()
    assert str(told.value) == f"[Errno 2] No such file or directory: '{tmp_path / 'nowhere' / 'video.gif'}'"


@pytest.mark.skipif(sys.platform != "linux", reason="other systems report no memory, or not in KiB")
def test_frames_are_not_kept(tmp_path: Path) -> None:
    """100 frames of 1.4 MB, 138 MB together."""
    import resource

    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    with Video(tmp_path / "video.mp4", 30) as video:
        for grey in range(100):
            video.add(frame_of(480, 960, grey))
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 100_000  # KiB


def test_a_video_of_another_kind_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"must end in \.mp4 or \.gif, not 'video\.avi'"):
        Video(tmp_path / "video.avi", 30)
