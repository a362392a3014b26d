"""HTTP only: the service around `models`, and the encoders that write its frames."""
