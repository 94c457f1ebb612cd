"""From what a run trained to what others use: export, its check, model card, push."""
