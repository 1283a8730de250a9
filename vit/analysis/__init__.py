"""What a trained net does, as pure functions: attention maps, rollout, distances, figures."""
