"""What clients, coordinators and oracles say to each other: messages, errors, and the framing of an update."""
