"""Faster ways to compute what `favor_lab.vlm.prefix` computes plainly. A reader may skip them."""
