"""Scores for anybody's images, and the page that shows them; nothing here knows our models."""
