"""Access tokens: their refresh, and requests to an OAuth 2 server. The public credentials are in `credentials`."""
