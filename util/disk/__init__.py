"""Folders and the disks they lie on: who writes, how much room there is."""
