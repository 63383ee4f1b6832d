"""`p2pfed demo`: four real nodes on this machine, their data, their report."""
