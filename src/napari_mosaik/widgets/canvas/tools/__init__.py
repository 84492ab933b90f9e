"""Tools of the canvas that work with or without a case."""
