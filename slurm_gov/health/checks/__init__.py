"""One file per check: what it looks at, its thresholds, and why they are what they are.

The standard library only (and pynvml, inside ``nvml``): a check runs in a process of its own, started often.
"""
