"""Figures of the whole gateway on one machine, printed; nothing here passes or fails."""
