"""Inside of a model, by captured path: read (`capture`), differentiated, written (`intervene`)."""
