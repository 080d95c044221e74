//! Readers of events: terminal and JUnit.
