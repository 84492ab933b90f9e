"""The canvas: slides, layers, cameras, tools for looking."""
