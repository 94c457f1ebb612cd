"""Power limits of GPUs, and which gives the most tokens per joule."""
