"""What the whole project stands on: the command line, networks, and helpers for arrays and files."""
