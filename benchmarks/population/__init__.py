"""The bars of populations."""
