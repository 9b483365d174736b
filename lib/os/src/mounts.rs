//! Mounts that nobody else sees. For tests: nothing that is delivered calls this.

use std::io;

/// Gives the calling thread a mount namespace of its own: what it mounts from now on is seen by itself, by the threads and programs that it starts
/// later, and by theirs, and goes when the last of them does, however that ends. Other threads that are there already go on in the old one; the
/// thread's working directory and file mode mask are its own from now on. Needs `CAP_SYS_ADMIN`.
pub fn make_own() -> io::Result<()> {
    // SAFETY: two calls with constants; the kernel reads two strings that live for ever and ignores the null pointers.
    unsafe {
        if libc::unshare(libc::CLONE_NEWNS) != 0 {
            return Err(io::Error::last_os_error());
        }
        // Neither does anything go back to the old one by propagation, nor come from there and hold a device.
        let (nothing, all) = (std::ptr::null(), libc::MS_REC | libc::MS_PRIVATE);
        match libc::mount(c"none".as_ptr(), c"/".as_ptr(), nothing, all, nothing.cast()) {
            0 => Ok(()),
            _ => Err(io::Error::last_os_error()),
        }
    }
}
