"""`p2pfed doctor`: whether this device can take part, found out by doing it, not by asking.

Each check is a generator of findings: one line, a level, and where it is not ok what to do about it.
Nothing is changed: a test file is removed again, a test packet is a query every mDNS responder knows.
"""
