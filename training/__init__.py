"""Makes checkpoints, and judges them."""
