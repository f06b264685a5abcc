"""Acting and gradients of small networks in NumPy: what torch computes, several times faster, and without torch."""
