"""Parts of HTML pages and the viewer in them."""
