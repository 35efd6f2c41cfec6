"""What a result looks like: excerpts, case views, result pages and their comparison."""
