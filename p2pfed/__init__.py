"""p2pfed: federated learning of LoRA adapters by gossip, without a server.

Importing this package costs nothing; what users call is in `p2pfed.api`.
"""

__version__ = "0.1.0"
