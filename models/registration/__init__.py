"""Registration: where any head's vertices lie on the atlas, found from its shape alone, without training."""
