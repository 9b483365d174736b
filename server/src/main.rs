//! `central-server --config server.toml [--check]`

#![forbid(unsafe_code)]

/// Many small pieces are taken by one thread and given back by another, which the C library's allocator is slow at.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() -> std::process::ExitCode {
    central_server::main(std::env::args_os())
}
