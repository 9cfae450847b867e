"""One supervisor over many worker processes on one state: it starts, restarts, stops and answers for them."""
