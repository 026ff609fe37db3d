"""Updates that say provably little about any one client: mechanisms, certificates, accounting, secure aggregation."""
