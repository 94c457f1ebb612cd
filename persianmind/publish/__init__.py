"""A trained model on its way to other people: its card, the licences it stands under, the Hub."""
