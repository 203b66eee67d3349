"""Pure functions: the mathematics that layers and models are made of."""
