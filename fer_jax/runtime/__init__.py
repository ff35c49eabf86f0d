"""Devices and processes, and files that all of them see."""
