"""Leaves that any other room may import: errors, metrics, pictures, pages, logs, seeds."""
