"""The commands of `main.py`, a function for each; torch is imported only where it is needed."""
