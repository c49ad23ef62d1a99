"""The command line. Nothing here imports pacavit outside a verb, so --help is instant."""
