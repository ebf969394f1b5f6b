"""The benchmark harness: protocol, jobs, engine, metrics, records, reports and the command line."""

__version__ = "0.1.0"
