"""Costs counted, timed, or compiled for machines that are absent."""
