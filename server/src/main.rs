//! `central-server --config server.toml [--check]`

#![forbid(unsafe_code)]

fn main() -> std::process::ExitCode {
    central_server::main(std::env::args_os())
}
