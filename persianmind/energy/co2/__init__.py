"""From joules to grams of CO2 equivalent."""
