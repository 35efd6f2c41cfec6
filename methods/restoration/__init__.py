"""microCTsmallpatchtest and clinicalpatchtest: shrunk slices restored and scored."""
