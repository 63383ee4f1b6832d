"""The production core in virtual time: one seed replays one history."""
