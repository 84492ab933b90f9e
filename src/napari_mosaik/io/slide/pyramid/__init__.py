"""Pyramid levels that a slide lacks."""
