"""Frames on a byte stream: four bytes of length, big-endian, then the frame; at most FRAME_BYTES_MAX.

The length is checked before anything of the frame is kept.
"""

from p2pfed.errors import RemoteError
from p2pfed.ports import FRAME_BYTES_MAX

LENGTH_BYTES = 4


def encode(frame: bytes) -> bytes:
    """Raises ValueError for a frame nobody would accept: our bug."""
    if len(frame) > FRAME_BYTES_MAX:
        raise ValueError(f"frame of {len(frame)} bytes, more than {FRAME_BYTES_MAX}")
    return len(frame).to_bytes(LENGTH_BYTES, "big") + frame


class FrameBuffer:
    """What was received and not yet taken; holds one frame and one read at most."""

    def __init__(self) -> None:
        self._bytes = bytearray()

    def __len__(self) -> int:
        return len(self._bytes)

    def feed(self, data: bytes) -> None:
        self._bytes += data

    def take(self) -> bytes | None:
        """The next whole frame, None where more bytes are needed. Raises RemoteError when it breaks the cap."""
        if len(self._bytes) < LENGTH_BYTES:
            return None
        length = int.from_bytes(self._bytes[:LENGTH_BYTES], "big")
        if length > FRAME_BYTES_MAX:
            raise RemoteError(f"frame of {length} bytes announced, more than {FRAME_BYTES_MAX}")
        if len(self._bytes) < LENGTH_BYTES + length:
            return None
        with memoryview(self._bytes) as view:  # one copy, not two
            frame = bytes(view[LENGTH_BYTES : LENGTH_BYTES + length])
        del self._bytes[: LENGTH_BYTES + length]
        return frame
