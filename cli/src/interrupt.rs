//! Ctrl-C while something is waited for that goes on without us.

use crate::exit::DETACHED;
use std::sync::Once;

/// From here on Ctrl-C ends this program only, and says this: what goes on, and how to come back. The first call counts.
pub(crate) fn detach(said: String) {
    static ONCE: Once = Once::new();
    ONCE.call_once(|| {
        // Without the thread Ctrl-C still ends this program, only silently.
        let _ = std::thread::Builder::new().name("interrupt".into()).spawn(move || on_interrupt(&said));
    });
}

fn on_interrupt(said: &str) {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_io().build();
    let interrupted = runtime.is_ok_and(|runtime| runtime.block_on(tokio::signal::ctrl_c()).is_ok());
    if interrupted {
        eprintln!("\nlastword: detached; {said}");
        std::process::exit(i32::from(DETACHED));
    }
}
