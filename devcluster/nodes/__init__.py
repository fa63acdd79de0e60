"""Nodes on one machine: network namespaces on a common bridge, and a small kubelet that calls CNI plugins."""
