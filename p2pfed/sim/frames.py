"""What a message weighs on the simulated wire, and whether it really goes through the codec.

With the codec every message is encoded, weighed and decoded, as in reality. Without it the object itself travels
and its weight is that of the first message of its kind and length: right within the few bytes by which msgpack
writes a small integer shorter than a large one.
"""

from p2pfed.core.messages import Message, Part, PartAsk, PeersTold, SwapAccept, SwapOffer, VersionTold
from p2pfed.wire.codec import decode, encode


class Frames:
    """One for a network. `load` and `read` are the two ends of a wire."""

    def __init__(self, codec: bool) -> None:
        self.codec = codec
        self.sizes: dict[type, int] = {}
        """Of kinds whose messages are all of one size; empty with the codec."""
        self._sizes_by_length: dict[tuple[type, int], int] = {}

    def load(self, message: Message) -> tuple[Message | bytes, int]:
        """What travels, and its bytes."""
        if self.codec:
            frame = encode(message)
            return frame, len(frame)
        return message, self._size(message)

    def _size(self, message: Message) -> int:
        length = _length(message)
        if length is None:
            if type(message) not in self.sizes:
                self.sizes[type(message)] = len(encode(message))
            return self.sizes[type(message)]
        key = (type(message), length)
        if key not in self._sizes_by_length:
            self._sizes_by_length[key] = len(encode(message))
        return self._sizes_by_length[key]

    def read(self, travelled: Message | bytes) -> Message:
        return decode(travelled) if isinstance(travelled, bytes) else travelled


def _length(message: Message) -> int | None:
    """What decides the size of a message besides its kind; None: nothing."""
    match message:
        case Part(data=data):
            return len(data)
        case PeersTold(peers=peers):
            return len(peers)
        case PartAsk(indexes=indexes):
            return len(indexes)
        case SwapOffer(version=version) | SwapAccept(version=version):
            return len(version.parts)
        case VersionTold(version=version):
            return len(version.parts) if version is not None else 0
    return None
