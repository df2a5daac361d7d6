"""What jobs make: kinds of assets and the keys of their files."""
