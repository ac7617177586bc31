"""Looking at a trained generator: sheets, mixing, walks, attention, projection, many images, speed, a local page."""
