"""AWS Lambda's event side, anywhere: pollers, batches, retries, destinations, and functions hosted here."""

__version__ = "0.1.0"
