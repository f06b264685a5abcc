"""Measurements, with the results that they gave."""
