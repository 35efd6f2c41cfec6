"""Checkpoint files, the weights that come with the project, and the folder of an experiment."""
