"""Whole programs: real processes, real libp2p on loopback, a real (small) model."""
