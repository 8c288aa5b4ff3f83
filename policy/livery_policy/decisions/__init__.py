"""Decisions as they happen: made with the policies of the moment, given an id, logged, kept to be explained."""
