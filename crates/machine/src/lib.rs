//! The life cycle of one machine, and what runs it: QEMU or systemd-nspawn.
