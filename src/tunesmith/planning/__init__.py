"""Planning: what a training will take, told from the model's config and the recipe alone."""
