"""The decision engine, its server, and the enforcement points that applications import."""
