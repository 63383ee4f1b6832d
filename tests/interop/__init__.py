"""Other implementations of libp2p speak to p2pfed."""
