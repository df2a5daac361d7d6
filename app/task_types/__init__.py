"""What a client can ask for: one file per task type, a registry, and the way in."""
