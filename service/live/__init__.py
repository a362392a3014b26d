"""`WS /live`: sound in while it is spoken, frames out: docs/live.md."""
