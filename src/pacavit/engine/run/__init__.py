"""The folder of a run: its lock, log, timer and environment."""
