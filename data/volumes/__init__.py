"""A volume in memory or on disk: geometry and units, mapping, cache, checks, names of files."""
