"""Mode 2: the oracle as a process of its own, which proves what it runs."""
