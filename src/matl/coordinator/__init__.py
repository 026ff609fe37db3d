"""The coordinator: rounds, storage, and the doors through which clients and operators come."""
