"""Which device trains, and why: decided once, before torch is imported."""
