"""Results to disk: NIfTI slice by slice, whole or not at all, and the formats exported from it."""
