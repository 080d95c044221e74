//! The program inside a machine.

fn main() {}
