"""Snapshots: what the network knows now, as a PEFT folder with a manifest."""
