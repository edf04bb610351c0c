"""Figures: arrays in, matplotlib figures out; none is saved here."""
