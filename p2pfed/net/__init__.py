"""Real networks: the trio driver, the transports, discovery and identity."""
