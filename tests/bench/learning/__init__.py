"""How much is learnt for how many bytes: gossip beside FedAvg, isolated nodes and centralised training.

`python -m tests.bench.learning --help`. One device is one domain. What is compared is the loss on questions no
device has seen, over all domains, at equal local steps.
"""
