//! The switch of a VLAN, its ports, and the machines' addresses.
