"""Plain averaging in Flower, of updates that cost nothing to compute."""
