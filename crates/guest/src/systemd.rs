//! systemd in the guest, over D-Bus.
