"""Suites: fixed lists of measurements that one command makes, and the rows and pages they end in."""
