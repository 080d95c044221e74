//! How much memory the host has.

/// Bytes of the host's memory.
#[cfg(target_os = "linux")]
#[must_use]
pub fn total() -> u64 {
    let info = rustix::system::sysinfo();
    info.totalram.saturating_mul(u64::from(info.mem_unit))
}

/// Bytes of the host's memory. None where it does not tell.
#[cfg(target_os = "macos")]
#[must_use]
pub fn total() -> u64 {
    let mut bytes = 0_u64;
    let mut size = size_of::<u64>();
    // SAFETY: the name ends with a zero, and the kernel writes at most `size` bytes to `bytes`.
    let told = unsafe {
        libc::sysctlbyname(
            c"hw.memsize".as_ptr(),
            (&raw mut bytes).cast(),
            &raw mut size,
            std::ptr::null_mut(),
            0,
        )
    };
    if told == 0 { bytes } else { 0 }
}
