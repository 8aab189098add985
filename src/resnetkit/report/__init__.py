"""What trainings and studies found, as one HTML file that opens anywhere, without a network."""
