"""Readers: one module a file format, discovery of volumes, and the one that picks the reader."""
