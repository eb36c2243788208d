"""The built-in factorizations: registered by entry points like anybody else's."""
