"""From a picture to the style that generates it."""
