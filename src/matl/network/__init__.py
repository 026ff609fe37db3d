"""A whole federation on one machine or on many: settings, processes, and a fleet of local clients."""
