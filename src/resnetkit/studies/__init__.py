"""Questions about residual networks, and the trainings that answer them."""
