"""Environments: the contract (`vec_env`) and one adapter a simulator."""
