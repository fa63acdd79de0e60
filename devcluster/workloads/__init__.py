"""Small controllers for planes without kube-controller-manager and kube-scheduler.

Each controller is a function from what is seen (world.World) to what is to be done (world.Action); manager.py looks,
asks all of them after every change, and does it. Enough for rolling updates, scaling, ordinals, a pod on each node,
and Jobs, at once or by the clock; volumes, disruption budgets, priorities and the rest of what the real ones do are
left out.
"""
