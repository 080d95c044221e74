//! The host's end of the agent: commands, files, waits, streams.
