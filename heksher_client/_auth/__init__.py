"""Access tokens: how they are refreshed, and how an OAuth 2 server is asked for them."""
