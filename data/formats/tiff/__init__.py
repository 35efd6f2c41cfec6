"""TIFF volumes: pages, what their tags mean, voxel sizes, files and stacks."""
