"""How fast environments are stepped and agents trained, as ratios within one run: `python -m benchmarks.throughput`."""
