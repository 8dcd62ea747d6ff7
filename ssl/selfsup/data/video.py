"""Video files, decoded by the package av, which is optional."""

import io

from selfsup.data.images import Unreadable
from selfsup.errors import UserError


def frames(data):
    """All frames of a video file's bytes, as Pillow images. Raises Unreadable."""
    try:
        import av
    except ImportError:
        raise UserError("video files need the package av: pip install av (or number the frames as images)") from None

    try:
        with av.open(io.BytesIO(data)) as file:
            frames = [frame.to_image() for frame in file.decode(video=0)]
    except av.error.FFmpegError as error:
        raise Unreadable(f"not a video: {error}") from None
    if not frames:
        raise Unreadable("a video without frames")
    return frames
