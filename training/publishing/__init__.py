"""What leaves the house: exported programs and model cards."""
