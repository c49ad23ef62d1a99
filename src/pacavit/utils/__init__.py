"""Small helpers without knowledge of models, data or tasks."""
