"""Planning: memory, time and energy forecast; doctor. Knows the recipe and the model."""
