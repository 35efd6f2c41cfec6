"""microCTsmallpatchtest and wholevolumetest: shrunk slices restored and scored."""
