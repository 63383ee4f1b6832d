"""A Kademlia DHT that speaks libp2p's `/ipfs/kad/1.0.0`, for one question: which peers are of this network?

Our own, not libp2p 0.8.1's KadDHT: that one finds its servers through identify, dials whatever the peer store holds
(16 hosts with one bootstrap peer: 8 to 15 connections each and 0.6 s of CPU a second for the first 9 s, one routing
table still empty then), repairs itself every 600 s and warns 593 times a minute. Ours dials what it is told, holds
no connection, does nothing between two rounds, and is small: `table`, `providers` and `lookup` are pure.
"""
