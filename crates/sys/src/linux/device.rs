//! Devices that may be there and not work: tried by asking them for what they are for.

use std::fs::File;
use std::io;
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd, RawFd};
use std::path::Path;

const KVM_GET_API_VERSION: libc::Ioctl = 0xAE00;
const KVM_CREATE_VM: libc::Ioctl = 0xAE01;
const KVM_CREATE_VCPU: libc::Ioctl = 0xAE41;
/// The only version that there has ever been.
const KVM_API: i32 = 12;

const BLKFLSBUF: libc::Ioctl = 0x1261;

const TUNSETIFF: libc::Ioctl = 0x4004_54CA;

/// Makes a VM with a processor by the device `path`, and throws it away. It is not run: there are hosts
/// on which that fails nevertheless.
///
/// # Errors
/// The device is not there, may not be opened, or does not do it.
pub fn try_kvm(path: &Path) -> io::Result<()> {
    let device = open(path)?;
    let version = ioctl(device.as_raw_fd(), KVM_GET_API_VERSION)?;
    if version != KVM_API {
        return Err(io::Error::other(format!(
            "it speaks version {version} of KVM, and not {KVM_API}"
        )));
    }
    let vm = ioctl(device.as_raw_fd(), KVM_CREATE_VM)?;
    // SAFETY: the kernel has just made this descriptor for us, and nobody else knows it.
    let vm = unsafe { OwnedFd::from_raw_fd(vm) };
    let processor = ioctl(vm.as_raw_fd(), KVM_CREATE_VCPU)?;
    // SAFETY: as above.
    drop(unsafe { OwnedFd::from_raw_fd(processor) });
    Ok(())
}

/// Makes an interface by the device `path` (`/dev/net/tun`), which goes again at once.
///
/// # Errors
/// The device is not there or may not be opened, or interfaces may not be made.
pub fn try_tun(path: &Path) -> io::Result<()> {
    let device = open(path)?;
    // SAFETY: all bytes of it may be zero: a name, and a union of plain data.
    let mut request: libc::ifreq = unsafe { std::mem::zeroed() };
    request.ifr_ifru.ifru_flags = (libc::IFF_TAP | libc::IFF_NO_PI) as libc::c_short;
    // SAFETY: the kernel reads and writes one `ifreq`, which outlives the call.
    let made = unsafe { libc::ioctl(device.as_raw_fd(), TUNSETIFF, &raw mut request) };
    if made < 0 {
        return Err(io::Error::last_os_error());
    }
    Ok(())
}

/// Has the kernel forget what it has read of a block device, of which nothing is mounted.
///
/// # Errors
/// It is none, or the caller may not.
pub fn forget_contents(device: &File) -> io::Result<()> {
    ioctl(device.as_raw_fd(), BLKFLSBUF).map(drop)
}

fn open(path: &Path) -> io::Result<File> {
    File::options().read(true).write(true).open(path)
}

/// One whose argument is the number 0.
fn ioctl(fd: RawFd, request: libc::Ioctl) -> io::Result<i32> {
    // SAFETY: these requests take a number and no pointer; the descriptor is open.
    let done = unsafe { libc::ioctl(fd, request, 0) };
    if done < 0 {
        return Err(io::Error::last_os_error());
    }
    Ok(done)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_no_such_device_is_refused() {
        for file in ["/dev/null", "/dev/zero"] {
            let kvm = try_kvm(Path::new(file)).unwrap_err();
            let tun = try_tun(Path::new(file)).unwrap_err();
            for error in [kvm, tun] {
                assert_eq!(error.raw_os_error(), Some(libc::ENOTTY), "{error}");
            }
        }
        let null = forget_contents(&File::open("/dev/null").unwrap()).unwrap_err();
        assert_eq!(null.raw_os_error(), Some(libc::ENOTTY), "{null}");
        let missing = try_kvm(Path::new("/dev/none")).unwrap_err();
        assert_eq!(missing.kind(), io::ErrorKind::NotFound);
    }
}
