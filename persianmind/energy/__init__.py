"""Energy: meter, ledger, CO2 report. Knows nothing of training."""
