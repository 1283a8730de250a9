"""Training: the Lightning task, its losses and recipe, and the callbacks that leave a run folder behind."""
