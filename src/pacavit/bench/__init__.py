"""Speed, memory and multiply-accumulates of networks side by side."""
