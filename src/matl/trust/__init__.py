"""Evidence about units: who behaves like an honest client, who does not, and why."""
