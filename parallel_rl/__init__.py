"""The foundation of the project: the command line, networks, and helpers for arrays and files."""
