"""Read regions of a slide in µm, region by region or in one pass."""
