"""Reading and running the blocks of the documentation's pages."""
