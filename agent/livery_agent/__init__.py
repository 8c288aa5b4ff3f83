"""The node daemon: attests the node, rotates the SVIDs of its workloads, and serves the SPIFFE Workload API."""
