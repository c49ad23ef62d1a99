"""Classification on pages: scores, confusion matrix, example images."""
