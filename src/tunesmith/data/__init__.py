"""From a file of rows to token ids: rows, templates, shots, tasks, encoding, packing and the ledger."""
