"""Recipes: how they are read, checked, listed and written."""
