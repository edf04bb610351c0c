"""Costs of functions: counted, measured, or compiled for absent machines."""
