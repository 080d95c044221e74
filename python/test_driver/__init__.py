"""The names under which test scripts of NixOS import parts of their driver: here, machinist's.

There is nothing in this package but other names for what is in ``machinist``.
"""
