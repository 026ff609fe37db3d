"""Who somebody is and what runs there: identities, signatures and evidence of hardware."""
