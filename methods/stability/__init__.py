"""stabilitytest: how far a result can be trusted, slice by slice, without a truth."""
