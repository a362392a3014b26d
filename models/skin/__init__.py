"""The neutral skin of the canonical head, at any size up to 8192: colour, relief, pores, hairs."""
