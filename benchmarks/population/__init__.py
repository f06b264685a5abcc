"""Speed and results of populations."""
