"""Clients out of configuration: a file with profiles, the environment, and tokens of those who have signed in.

What a program uses of it is in `heksher_client` itself: `connect`, `connect_async`, `login`, `login_headless`,
`login_with_token`, `logout`.
"""
