"""Volumes with their geometry, intensity windows, lung masks, patch sampling and the phantom."""
