//! A power loss, as far as a file system can feel one. For tests: nothing that is delivered calls this.

use crate::disk::open_dir;
use std::io;
use std::os::fd::AsRawFd;
use std::path::Path;

/// `EXT4_IOC_SHUTDOWN` and `XFS_IOC_GOINGDOWN`, which are one number: `_IOR('X', 125, __u32)` of the kernel's `fs/ext4/ext4.h` and `fs/xfs/libxfs/xfs_fs.h`.
const SHUT_DOWN: libc::Ioctl = 0x8004_587d_u32 as libc::Ioctl;
/// `EXT4_GOING_FLAGS_NOLOGFLUSH`, `XFS_FSOP_GOING_FLAGS_NOLOGFLUSH`: what is not on the disk yet will never be.
const NO_LOG_FLUSH: u32 = 2;

/// Shuts the file system at this path down without writing anything more: every write and sync from now on fails with `EIO`, and what the kernel
/// has in its cache only is lost as soon as it is unmounted. Mounted again it is as after a power loss, but for what a disk's own cache
/// would lose. ext4 and XFS; needs `CAP_SYS_ADMIN`.
pub fn shut_down(path: &Path) -> io::Result<()> {
    let dir = open_dir(path)?;
    let how = NO_LOG_FLUSH;
    // SAFETY: the descriptor is open, and the kernel only reads the 4 bytes.
    match unsafe { libc::ioctl(dir.as_raw_fd(), SHUT_DOWN, &raw const how) } {
        0 => Ok(()),
        _ => Err(io::Error::last_os_error()),
    }
}
