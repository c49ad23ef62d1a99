"""Weights as files: format, checkpoints, loading, transfer, conversion, the Hugging Face Hub."""
