"""`p2pfed demo`: a whole network on one machine, and what it learnt next to what training alone learns.

Nothing in here is special to the demo's nodes: they are the commands a device operator types, as processes.
"""
