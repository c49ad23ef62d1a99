"""Model cards, packaged weights, Hub folders and the published numbers."""
