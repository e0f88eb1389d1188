"""From an open checkpoint to a finished scan: plan, read ahead, decompose, several ranks, the store."""
