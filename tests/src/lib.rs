//! Tests on real machines, through the program as a user runs it.
