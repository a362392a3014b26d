"""The synthetic corpus: speech, coarticulation, faces."""
