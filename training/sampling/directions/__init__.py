"""Directions in w along which pictures change."""
