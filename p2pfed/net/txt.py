"""TXT records of a name, asked of the name servers this device is set up with (dnspython, in a thread).

Imported only where a seed is a /dnsaddr: dnspython is 5 MB.
"""

import dns.exception
import dns.resolver

from p2pfed.errors import TransportError

ASK_S = 5.0
"""For all name servers together."""
RECORDS_MAX = 64
TEXT_BYTES_MAX = 512


def resolve_txt(name: str, resolver: dns.resolver.Resolver | None = None) -> list[str]:
    """Blocking. Raises TransportError with what went wrong."""
    try:
        asked = resolver if resolver is not None else dns.resolver.Resolver()
        answer = asked.resolve(name, "TXT", lifetime=ASK_S)
    except dns.resolver.NXDOMAIN:
        raise TransportError(f"the name {name} does not resolve") from None
    except dns.resolver.NoAnswer:
        raise TransportError(f"the name {name} has no TXT record") from None
    except dns.exception.Timeout:
        raise TransportError(f"no name server answers for {name}") from None
    except dns.exception.DNSException as error:
        raise TransportError(f"the name {name} does not resolve ({type(error).__name__})") from error
    except OSError as error:
        raise TransportError(f"no name server can be asked for {name} ({error.strerror})") from error
    texts = []
    for record in list(answer)[:RECORDS_MAX]:
        raw = b"".join(record.strings)
        if len(raw) <= TEXT_BYTES_MAX and raw.isascii():
            texts.append(raw.decode())
    return texts
