"""Heads to judge the registration with: variants of MakeHuman's, of which is known where every vertex belongs."""
