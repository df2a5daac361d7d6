"""Stand-ins for OpenAI Images and Tripo v3, with a ledger of what was accepted and charged."""
