"""One file for each slide format."""
