"""Other queues with no-op jobs. Each script runs in an environment of its own, which the product never sees."""
