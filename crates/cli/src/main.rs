//! The machinist program: one file for each verb.

fn main() {}
