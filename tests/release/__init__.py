"""What is released: built, checked and listed by `scripts/release`."""
