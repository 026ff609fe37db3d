"""Several runs that belong together, and the reports about them."""
