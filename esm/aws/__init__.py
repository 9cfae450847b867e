"""Sessions, endpoints and failures of AWS clients: what every adapter that calls AWS shares."""
