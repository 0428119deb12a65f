"""What a model is: pixel convention, architectures, cards, and the store they are kept in."""
