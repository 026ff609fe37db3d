"""The life of a run: how its rounds take updates, are closed, judged and committed, and go on after an interruption."""
