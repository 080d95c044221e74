//! The processor's time stamp counter.

/// The counter now; none where the processor is of another kind.
#[must_use]
pub fn ticks() -> Option<u64> {
    #[cfg(target_arch = "x86_64")]
    {
        // SAFETY: every processor of this architecture has the instruction, and Linux lets programs
        // use it unless they asked to be killed for it (PR_SET_TSC), which nobody here does.
        Some(unsafe { core::arch::x86_64::_rdtsc() })
    }
    #[cfg(not(target_arch = "x86_64"))]
    None
}
