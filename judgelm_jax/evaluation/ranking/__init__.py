"""From judgments of pairs to an order of the models, and how sure it is."""
