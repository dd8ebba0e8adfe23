"""`appo doctor`: what this machine can run, and the fix for what it cannot.

Imports the standard library alone, so that it runs where nothing else does; whatever may crash or
hang (torch, simulators, Hydra's plugins) is imported in a process of its own, with a time limit.
"""
