"""HTTP: the endpoint, and an exchange with it: authentication, rate limit, connection, body, errors."""
