"""DICOM series: headers, pixels, and the order of slices."""
