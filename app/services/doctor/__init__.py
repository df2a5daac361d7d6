"""Looks for what is misconfigured: settings, database, schema, broker, storage, identity, providers, workers.

One file per group of checks; ``rounds`` runs them.
"""
