"""Drawing annotations."""
