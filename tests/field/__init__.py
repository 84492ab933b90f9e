"""Inputs of the real world: each test is an input that a user brought, with the right answer."""
