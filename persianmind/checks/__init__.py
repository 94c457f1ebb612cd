"""What can be wrong with a machine or a recipe, found before anything is written."""
