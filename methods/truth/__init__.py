"""phantomtest: models scored against the phantom's truth."""
