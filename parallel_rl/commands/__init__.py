"""What `main.py` can do, a function for each command; torch is imported where it is needed."""
