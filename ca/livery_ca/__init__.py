"""The authority: attests nodes, holds entries, and issues short-lived SVIDs through one typed pipeline."""
