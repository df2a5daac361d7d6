"""The queue kernel: the one way in which a job changes. Features plug into it through the contracts."""
