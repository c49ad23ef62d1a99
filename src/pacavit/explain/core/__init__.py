"""Recordings of a forward pass, and the maps and masks computed from them."""
