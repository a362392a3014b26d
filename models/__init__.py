"""The core: speech in, frames out."""
