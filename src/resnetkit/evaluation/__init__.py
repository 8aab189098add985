"""What a trained network gets right and wrong, and how far its own confidence can be trusted."""
