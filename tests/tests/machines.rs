//! The program with real machines. Tests run one after another: each has the host for itself.

#![expect(missing_docs, reason = "a test program has no readers of its items")]

use machinist_tests as _;
fn main() {}
