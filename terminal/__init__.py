"""The command line: what is typed becomes a call of the API, and what comes back a page on a terminal."""
