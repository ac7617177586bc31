"""What pictures pass before the discriminator sees them: the ADA pipeline and the variations of bCR."""
