"""What a person reads of a run: tables, pictures and model cards."""
