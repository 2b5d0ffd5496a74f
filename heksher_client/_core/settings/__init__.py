"""What a program declares and reads: settings, their context, rules and values. Needs no client."""
