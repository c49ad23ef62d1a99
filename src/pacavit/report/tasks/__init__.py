"""What pages show of a task's results, one package a task."""
