"""Clinical CT to SR volumes, slice by slice, with what goes beside them."""
