"""Long checks that run as programs of their own."""
