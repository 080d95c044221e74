//! The agent protocol: frames and messages, no IO.
