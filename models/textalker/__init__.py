"""TexTalker: motion and wrinkles together."""
