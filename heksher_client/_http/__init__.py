"""How a request travels: the endpoint, authentication, the rate limit, the body and errors of the network."""
