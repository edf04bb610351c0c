"""Arrays inside of a model by captured path: captured, differentiated, edited, swept."""
