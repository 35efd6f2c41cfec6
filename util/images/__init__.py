"""Numbers and pictures of images: resampling, windows, metrics, texture."""
