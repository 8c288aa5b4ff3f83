"""Two small real services, `orders` and `inventory`, that talk HTTP over mTLS with SVIDs from the Workload API."""
