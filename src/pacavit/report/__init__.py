"""Reports of runs, evaluations and explanations: tables, pictures, pages and model cards."""
