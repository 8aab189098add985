"""What the network is: pure torch, imports nothing else of this package but its errors."""
