"""Whether two peers may work together, and if not, which field says so."""

from p2pfed.core.messages import Hello

VALUE_CHARS_SHOWN = 64


def difference(mine: Hello, theirs: Hello) -> str | None:
    """The first field that must be equal and is not, as a sentence; None where all are.

    Fingerprint fields are compared only where both sides have them: bootstrap peers and observers have none.
    """
    if mine.version != theirs.version:
        return _sentence("protocol version", str(mine.version), str(theirs.version))
    own_fields, their_fields = dict(mine.network), dict(theirs.network)
    for name in sorted(own_fields.keys() | their_fields.keys()):
        if own_fields.get(name) != their_fields.get(name):
            return _sentence(name, own_fields.get(name, "nothing"), their_fields.get(name, "nothing"))
    if mine.network_id != theirs.network_id:
        return _sentence("network id", mine.network_id, theirs.network_id)
    prints = dict(theirs.fingerprint)
    for name, value in mine.fingerprint:
        if prints.get(name, value) != value:
            return _sentence(name, value, prints[name])
    return None


def _sentence(name: str, own: str, other: str) -> str:
    return f"{name} is {other[:VALUE_CHARS_SHOWN]} there and {own[:VALUE_CHARS_SHOWN]} here"
