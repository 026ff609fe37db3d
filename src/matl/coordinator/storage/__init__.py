"""What a coordinator remembers: its database, the blobs beside it, and copies of both."""
