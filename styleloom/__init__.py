"""StyleLoom from Python, and by one command for all its scripts (`styleloom --help`)."""
