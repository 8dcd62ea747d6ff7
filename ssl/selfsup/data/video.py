"""Video files, decoded by the package av, which is optional."""

import io

from selfsup.data.images import BANDS, PIXELS, Unreadable
from selfsup.errors import UserError


def needed():
    """The package, or a UserError that says how to get it."""
    try:
        import av
    except ImportError:
        raise UserError("video files need the package av: pip install av (or number the frames as images)") from None
    return av


def frames(data):
    """All frames of a video file's bytes, as Pillow images. Raises Unreadable."""
    av, frames, pixels = needed(), [], 0
    try:
        with av.open(io.BytesIO(data)) as file:
            if not file.streams.video:
                raise Unreadable("not a video: there are no pictures in it")
            for frame in file.decode(video=0):
                pixels += frame.width * frame.height
                if pixels > BANDS * PIXELS:
                    raise Unreadable(f"more than {BANDS * PIXELS:,} pixels in its frames")
                frames.append(frame.to_image())
    except av.error.FFmpegError as error:
        raise Unreadable(f"not a video: {error}") from None
    if not frames:
        raise Unreadable("a video without frames")
    return frames
