"""Settings, as a program declares and reads them: their context, rules and values. They need no client."""
