"""What strangers may send, and what it may cost at most: bounds on CPU seconds and bytes."""
