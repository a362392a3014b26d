"""MMTalker: geometry at any resolution."""
