"""Peers that find each other beyond the LAN: whole nodes and bootstrap peers, on loopback."""
